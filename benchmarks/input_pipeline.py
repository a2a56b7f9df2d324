"""Images per second of the ImageNet pipeline alone, with nothing that trains.

    python benchmarks/input_pipeline.py --data_dir=FOLDER_OF_TFRECORDS
    python benchmarks/input_pipeline.py                 # on JPEGs made for it, of ImageNet's size

Training and validation batches are drawn and thrown away, after a warm-up. `skip` is what resuming
in mid-epoch costs: records a second that are read, shuffled and dropped undecoded. `check` is what
finding faults before step 1 costs, without the index kept from an earlier run.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

from absl import app, flags

from neural_alignment.config import options

_SIZES = ((375, 500), (500, 375), (333, 500), (480, 640))  # the most usual ones in ImageNet


def make(folder: str, images: int, shards: int = 8) -> None:
    """Writes shards of random images whose JPEGs are about as large as ImageNet's (110 KB)."""
    import numpy as np
    import tensorflow as tf

    from neural_alignment.data import prepare

    generator = np.random.default_rng(0)
    jpegs = []
    for number in range(64):
        height, width = _SIZES[number % len(_SIZES)]
        coarse = generator.uniform(0, 255, (height // 8, width // 8, 3))
        pixels = tf.image.resize(coarse, (height, width), "bicubic").numpy()
        pixels = np.clip(pixels + generator.normal(0, 9, pixels.shape), 0, 255)
        jpegs.append(tf.io.encode_jpeg(pixels.astype(np.uint8), quality=92).numpy())
    for split in ("train", "validation"):
        for shard in range(shards):
            path = os.path.join(folder, f"{split}-{shard:05d}-of-{shards:05d}")
            with tf.io.TFRecordWriter(path) as writer:
                for number in range(shard, images, shards):
                    writer.write(prepare.example(jpegs[number % 64], number % 1000, "usual"))


def rates(batches: Iterator, batch_size: int, warm_up: int, count: int) -> tuple[float, float]:
    """Images per second over `count` batches, and the median batch's time in milliseconds."""
    for _ in range(warm_up):
        next(batches)
    times = [time.perf_counter()]
    for _ in range(count):
        next(batches)
        times.append(time.perf_counter())
    steps = [1000 * (after - before) for before, after in zip(times, times[1:], strict=False)]
    return batch_size * count / (times[-1] - times[0]), statistics.median(steps)


def main(argv: list[str]) -> None:
    """Reads the flags, measures, prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from neural_alignment.data import imagenet, tfrecords

    values = flags.FLAGS
    total = values.warm_up + values.batches
    names = ("preprocessing", "image_size", "num_train", "num_validation")
    options = {name: values[name].value for name in names}
    with contextlib.ExitStack() as stack:
        folder = values.data_dir
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            images = values.batch_size * total
            make(folder, images)
            options |= {"num_train": images, "num_validation": images}
        try:
            data = imagenet.load("imagenet", folder, **options)
        except (OSError, ValueError) as error:
            sys.exit(f"input_pipeline.py: {error}")
        if data.num_train // values.batch_size < total:
            sys.exit(
                f"input_pipeline.py: Expected {total * values.batch_size} training images in "
                f"{folder}, for the batches asked for. Received: {data.num_train}."
            )
        size = data.image_shape[0]
        print(
            f"{values.preprocessing}, {size} px, batch {values.batch_size}, {os.cpu_count()} cores"
        )

        start = time.perf_counter()
        shards = [tfrecords.index_shard(shard.path) for shard in data.shards["train"]]
        records = sum(shard.records for shard in shards)
        print(f"check       {records / (time.perf_counter() - start):10.0f} records/s")

        skipped = min(total, data.steps_per_epoch(values.batch_size))
        batches = iter(data.train(values.batch_size, 0, 0, skip_batches=skipped))
        start = time.perf_counter()
        next(batches, None)
        rate = values.batch_size * skipped / (time.perf_counter() - start)
        print(f"skip        {rate:10.0f} records/s")

        for split, batches in (
            ("train", data.train(values.batch_size, epoch=0, seed=0)),
            ("validation", data.validation(values.batch_size)),
        ):
            count = values.batches
            if split == "validation":
                count = min(count, data.num_validation // values.batch_size - values.warm_up)
            if count > 0:
                rate, step = rates(iter(batches), values.batch_size, values.warm_up, count)
                print(f"{split:11} {rate:10.0f} images/s, median batch {step:.0f} ms")


if __name__ == "__main__":
    options.define_path("data_dir", None, "folder of TFRecords; made for the run by default")
    flags.DEFINE_enum("preprocessing", "resnet", ["resnet", "inception"], "which to measure")
    flags.DEFINE_integer("image_size", None, "pixels a side; the preprocessing's own by default")
    flags.DEFINE_integer("num_train", None, "images there are, if not all of ImageNet's")
    flags.DEFINE_integer("num_validation", None, "the same for validation")
    flags.DEFINE_integer("batch_size", 256, "images of a batch", lower_bound=1)
    flags.DEFINE_integer("warm_up", 2, "batches before the clock starts", lower_bound=0)
    flags.DEFINE_integer("batches", 10, "batches that are timed", lower_bound=1)
    app.run(main)
