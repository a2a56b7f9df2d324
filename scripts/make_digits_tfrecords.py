"""Makes a small data set in ImageNet's format, offline, from the embedded digits.

The digits' own split, as JPEGs in TFRecord shards train-* and validation-*, with a manifest:

    python scripts/make_digits_tfrecords.py --output_dir=data/digits32 --image_size=32
    python scripts/train.py --dataset=imagenet --data_dir=data/digits32 --image_size=32 ...
"""

from __future__ import annotations

import json
import os
import sys

from absl import app, flags

from neural_alignment.config import options
from neural_alignment.data import prepare
from neural_alignment.data.claim import storage


def make(
    output_dir: str,
    image_size: int = 32,
    layout: str = "original",
    train_shards: int = 8,
    validation_shards: int = 2,
    limit: int | None = None,
) -> None:
    """Writes the shards and a manifest.

    Args:
        output_dir: the folder; made if it is not there.
        image_size: pixels a side of the JPEGs.
        layout: a key of `prepare.FORMATS`: the features' names.
        train_shards: number of shards train-*.
        validation_shards: number of shards validation-*.
        limit: images of each split; None: all 1,347 and 450.
    """
    import tensorflow as tf

    from neural_alignment.data import digits

    data = digits.load()
    os.makedirs(output_dir, exist_ok=True)
    manifest = {"num_classes": data.num_classes, "splits": {}}
    splits = {
        "train": (data.train_images, data.train_labels, train_shards),
        "validation": (data.validation_images, data.validation_labels, validation_shards),
    }
    for split, (images, labels, count) in splits.items():
        pixels = tf.image.resize(images[:limit] / data.scale * 255, [image_size, image_size])
        pixels = tf.image.grayscale_to_rgb(tf.cast(tf.round(pixels), tf.uint8))
        manifest["splits"][split] = {}
        for shard in range(count):
            name = f"{split}-{shard:05d}-of-{count:05d}"
            numbers = range(shard, len(pixels), count)
            with tf.io.TFRecordWriter(os.path.join(output_dir, name)) as writer:
                for number in numbers:
                    jpeg = tf.io.encode_jpeg(pixels[number], quality=95).numpy()
                    writer.write(prepare.example(jpeg, int(labels[number]), layout))
            manifest["splits"][split][name] = len(numbers)
    with open(os.path.join(output_dir, prepare.MANIFEST), "w") as file:
        json.dump(manifest, file, indent=1)


def main(argv: list[str]) -> None:
    """Reads the flags and makes the data set."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}.")
    values = flags.FLAGS
    if os.path.isdir(values.output_dir) and os.listdir(values.output_dir):
        sys.exit(f"Expected an empty or new --output_dir. Received: {values.output_dir}.")
    try:
        with storage(values.output_dir):
            make(
                values.output_dir,
                values.image_size,
                values.layout,
                values.train_shards,
                values.validation_shards,
            )
    except OSError as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {error}")


if __name__ == "__main__":
    options.define_path("output_dir", None, "folder to write to", required=True)
    flags.DEFINE_integer("image_size", 32, "pixels a side", lower_bound=8)
    flags.DEFINE_enum("layout", "original", sorted(prepare.FORMATS), "names of the features")
    flags.DEFINE_integer("train_shards", 8, "shards of the training split", lower_bound=1)
    flags.DEFINE_integer("validation_shards", 2, "shards of the validation split", lower_bound=1)
    app.run(main)
