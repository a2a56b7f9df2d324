"""The pipeline on small data sets in the real format: JPEG TFRecords made from the digits."""

import json
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from neural_alignment import data
from neural_alignment.data import imagenet, preprocessing, tfrecords
from neural_alignment.data.padding import pad_batches
from tests.data import jpegs

TRAIN, VALIDATION, BATCH, STEPS = 96, 96, 10, 9


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    for layout in ("original", "usual"):
        jpegs.make(root / layout, layout=layout)
    return root


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(made / "original", tmp_path / "set")
    return tmp_path / "set"


def load(folder, **options):
    return data.get("imagenet", data_dir=str(folder), **({"image_size": 32} | options))


def arrays(batches):
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def assert_equal(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def test_what_is_loaded(made):
    dataset = load(made / "original")
    assert (dataset.name, dataset.num_classes, dataset.image_shape) == ("imagenet", 10, (32, 32, 3))
    assert (dataset.num_train, dataset.num_validation) == (TRAIN, VALIDATION)
    train = arrays(dataset.train(BATCH, epoch=0, seed=0))
    assert [images.shape for images, _ in train] == [(BATCH, 32, 32, 3)] * STEPS
    assert {(x.dtype, y.dtype) for x, y in train} == {(np.dtype("f4"), np.dtype("i4"))}


def test_images_and_labels_are_those_of_the_digits(made):
    digits = data.get("digits")
    found = {}
    for images, labels in arrays(load(made / "original").validation(32)):
        for image, label in zip(images, labels, strict=True):
            # Evaluation shows the central 224/256; the middle pixels stay where they are.
            pixels = image * preprocessing.STDDEV_RGB + preprocessing.MEAN_RGB
            found.setdefault(label, []).append(pixels.mean())
    wanted = {}
    for image, label in zip(digits.validation_images, digits.validation_labels, strict=True):
        wanted.setdefault(label, []).append(image.mean() / 16)
    counts = np.bincount(digits.validation_labels[:VALIDATION], minlength=10)
    assert [len(found[label]) for label in range(10)] == list(counts)
    for label in range(10):
        assert abs(np.mean(found[label]) - np.mean(wanted[label])) < 0.1


def test_both_layouts_give_the_same(made):
    original, usual = load(made / "original"), load(made / "usual")
    assert {shard.layout for shard in original.shards["train"]} == {0}
    assert {shard.layout for shard in usual.shards["train"]} == {1}
    assert_equal(arrays(original.train(BATCH, 1, 2)), arrays(usual.train(BATCH, 1, 2)))
    assert_equal(arrays(original.validation(32)), arrays(usual.validation(32)))


def test_an_epoch_is_a_function_of_seed_and_epoch(made):
    dataset = load(made / "original", shuffle_buffer=32)
    first = arrays(dataset.train(BATCH, epoch=3, seed=5))
    tf.random.set_seed(123)  # must not matter
    assert_equal(first, arrays(load(made / "original", shuffle_buffer=32).train(BATCH, 3, 5)))
    for epoch, seed in ((4, 5), (3, 6)):
        other = arrays(dataset.train(BATCH, epoch, seed))
        assert any((x != y).any() for (_, x), (_, y) in zip(first, other, strict=True))
        assert all((x != y).any() for (x, _), (y, _) in zip(first, other, strict=True))


@pytest.mark.parametrize("skip", [1, 4, STEPS - 1, STEPS])
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_a_resumed_epoch_is_the_rest_of_it(made, skip, shard):
    dataset = load(made / "original", shuffle_buffer=40)
    full = arrays(dataset.train(BATCH, 2, 1, shard=shard))
    rest = arrays(dataset.train(BATCH, 2, 1, skip_batches=skip, shard=shard))
    assert_equal(full[skip:], rest)


def numbered(folder):
    """Gives every training record a label of its own; returns {label: (shard, index)}."""
    places = {}
    for path in sorted(folder.glob("train-*")):
        records = jpegs.read(path)
        for index in range(len(records)):
            label = len(places)
            records[index] = jpegs.edit(records[index], labels=label)
            places[label] = (path, index)
        jpegs.write(path, records)
    return places


def test_what_is_skipped_is_not_decoded(folder):
    places = numbered(folder)
    full = arrays(load(folder, num_classes=TRAIN).train(BATCH, 0, 0))
    skipped = {label for _, labels in full[:4] for label in labels}
    assert len(skipped) == 4 * BATCH
    for path in sorted(folder.glob("train-*")):
        jpegs.corrupt(path, *(places[label][1] for label in skipped if places[label][0] == path))
    dataset = load(folder, num_classes=TRAIN)
    assert_equal(full[4:], arrays(dataset.train(BATCH, 0, 0, skip_batches=4)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="BadRecordError"):
        arrays(dataset.train(BATCH, 0, 0, skip_batches=3))


def test_every_image_comes_once_an_epoch(folder):
    numbered(folder)
    dataset = load(folder, num_classes=TRAIN)
    labels = np.concatenate([y for _, y in arrays(dataset.train(8, 0, 0))])
    assert sorted(labels) == list(range(TRAIN))
    assert list(labels) != sorted(labels)


@pytest.mark.parametrize("count", [2])
def test_the_parts_of_all_workers_are_the_batch(made, count):
    dataset = load(made / "original")
    full = arrays(dataset.train(BATCH, 0, 7))
    parts = [arrays(dataset.train(BATCH, 0, 7, shard=(i, count))) for i in range(count)]
    together = [tuple(map(np.concatenate, zip(*part, strict=True))) for part in zip(*parts)]  # noqa: B905
    assert_equal(full, together)


def test_workers_that_read_their_own_files_share_the_images(folder):
    numbered(folder)
    dataset = load(folder, num_classes=TRAIN, shard_by="file")
    seen = [
        {y for _, labels in arrays(dataset.train(8, 0, 0, shard=(i, 2))) for y in labels}
        for i in range(2)
    ]
    assert not seen[0] & seen[1] and seen[0] | seen[1] == set(range(TRAIN))
    full = arrays(dataset.train(8, 0, 0, shard=(1, 2)))
    assert_equal(full[5:], arrays(dataset.train(8, 0, 0, skip_batches=5, shard=(1, 2))))


@pytest.mark.parametrize(
    ("shard_by", "count", "message"),
    [
        ("file", 2, None),
        ("record", 3, None),
        # 4 files in 3 parts are 2, 1, 1
        ("file", 3, "Expected 32 .* 1 files of worker 1, one of 3. .* 24. Use shard_by='record'"),
        ("file", 6, "Expected 16 .* 0 files of worker 4, one of 6. .* 0."),
    ],
)
def test_a_worker_with_too_few_records_is_found_before_step_1(made, shard_by, count, message):
    dataset = load(made / "original", shard_by=shard_by)
    if message is None:
        dataset.check_shares(12, count)
        dataset.train(12, 0, 0, shard=(0, count))
        return
    for ask in (dataset.check_shares, lambda *_: dataset.train(12, 0, 0, shard=(0, count))):
        with pytest.raises(ValueError, match=message):
            ask(12, count)


def test_storage_that_is_no_local_disk(made):
    local = load(made / "original")
    for path in (made / "original").iterdir():
        tf.io.gfile.copy(str(path), f"ram://set/{path.name}", overwrite=True)
    remote = load("ram://set")
    assert remote.shards["train"][0].path == "ram://set/train-00000-of-00004"
    assert_equal(arrays(local.train(BATCH, 0, 0)), arrays(remote.train(BATCH, 0, 0)))
    assert_equal(arrays(local.validation(40)), arrays(remote.validation(40)))
    index = tfrecords.index_shard(remote.shards["train"][1].path)  # read whole, not mapped
    assert index == remote.shards["train"][1]
    with pytest.raises(FileNotFoundError, match="ram://none"):
        load("ram://none")


def test_validation_without_training_shards(folder):
    whole = load(folder)
    for path in folder.glob("*train*"):
        path.unlink()
    dataset = load(folder, splits=("validation",))
    assert (dataset.num_train, dataset.num_validation) == (TRAIN, VALIDATION)
    assert_equal(arrays(whole.validation(40)), arrays(dataset.validation(40)))
    assert not (folder / "index-train.json").exists()


@pytest.mark.parametrize(
    ("batch", "count"), [(32, 1), (40, 1), (40, 2), (40, 4), (128, 2), (97, 1)]
)
def test_validation_covers_every_image_once(made, batch, count):
    dataset = load(made / "original")
    whole = arrays(dataset.validation(VALIDATION))
    parts = [arrays(dataset.validation(batch, shard=(i, count))) for i in range(count)]
    assert {len(part) for part in parts} == {-(-VALIDATION // batch)}
    together = [tuple(map(np.concatenate, zip(*part, strict=True))) for part in zip(*parts)]  # noqa: B905
    assert_equal(whole, [tuple(map(np.concatenate, zip(*together, strict=True)))])


def test_padded_batches_are_static_and_weigh_every_image_once(made):
    dataset = load(made / "original")
    for count in (1, 4):
        total = 0.0
        for index in range(count):
            batches = pad_batches(dataset.validation(40, shard=(index, count)), 40 // count)
            assert [spec.shape[0] for spec in batches.element_spec] == [40 // count] * 3
            for images, labels, weights in batches:
                assert not images[weights.numpy() == 0].numpy().any()
                assert not labels[weights.numpy() == 0].numpy().any()
                total += float(tf.reduce_sum(weights))
        assert total == VALIDATION
    with pytest.raises(ValueError, match="Expected a batch size >= 1"):
        pad_batches(dataset.validation(40), 0)


def test_a_corrupt_image_is_an_error_that_names_it(folder):
    jpegs.corrupt(folder / "train-00002-of-00004", 7)
    dataset = load(folder)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        arrays(dataset.train(BATCH, 0, 0))
    message = imagenet.describe_error(caught.value)
    assert message.startswith(f"{folder}/train-00002-of-00004, record 7: Expected an image")
    assert "max_bad_records" in message and "\n" not in message
    assert imagenet.describe_error(ValueError("another")) is None


def test_corrupt_images_are_counted_and_replaced(folder):
    places = numbered(folder)
    full = arrays(load(folder, num_classes=TRAIN).train(BATCH, 0, 0))
    first, second = int(full[2][1][0]), int(full[6][1][3])
    for label in (first, second):
        jpegs.corrupt(places[label][0], places[label][1])
    dataset = load(folder, num_classes=TRAIN, max_bad_records=2)
    for epoch in (0, 0):  # met again, a record is not counted again
        repaired = arrays(dataset.train(BATCH, epoch, 0))
    assert dataset.bad_records.found == tuple(
        (str(places[label][0]), places[label][1]) for label in (first, second)
    )
    for number, ((x, y), (images, labels)) in enumerate(zip(full, repaired, strict=True)):
        good = ~np.isin(y, (first, second))
        assert good.all() == (number not in (2, 6))
        np.testing.assert_array_equal(images[good], x[good])
        assert set(labels) <= set(y[good])
    rest = arrays(dataset.train(BATCH, 0, 0, skip_batches=6))
    assert_equal(repaired[6:], rest)
    with pytest.raises(tf.errors.InvalidArgumentError, match="the 2nd of this process"):
        arrays(load(folder, num_classes=TRAIN, max_bad_records=1).train(BATCH, 0, 0))


def test_corrupt_validation_images_are_counted_and_left_out(folder):
    jpegs.corrupt(folder / "validation-00000-of-00002", 0, 40)
    dataset = load(folder, max_bad_records=2)
    batches = arrays(dataset.validation(40))
    assert sum(len(labels) for _, labels in batches) == VALIDATION - 2
    assert len(dataset.bad_records.found) == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="validation-00000-of-00002, record 0"):
        arrays(load(folder).validation(40))


def test_a_batch_of_corrupt_images_is_an_error(folder):
    for path in folder.glob("train-*"):
        jpegs.corrupt(path, *range(24))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a batch with a usable image"):
        arrays(load(folder, max_bad_records=96).train(BATCH, 0, 0))


def test_a_record_that_is_no_example_is_a_bad_one(folder):
    path = folder / "train-00000-of-00004"
    dataset = load(folder)
    records = jpegs.read(path)
    records[5] = b"\x0a" + records[5][:-1]
    jpegs.write(path, records)  # after the check, as if it had gone bad during the run
    with pytest.raises(tf.errors.InvalidArgumentError, match="train-00000-of-00004, record 5"):
        arrays(dataset.train(BATCH, 0, 0))


def spans(path):
    content = path.read_bytes()
    return list(tfrecords.frames(content, str(path))), bytearray(content)


def test_a_damaged_payload_names_shard_and_record(folder):
    path = folder / "train-00001-of-00004"
    places, content = spans(path)
    content[places[9][0] + 100] ^= 0xFF
    path.write_bytes(content)
    dataset = load(folder, max_bad_records=96)  # a damaged shard is no matter of corrupt images
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        arrays(dataset.train(BATCH, 0, 0))
    message = imagenet.describe_error(caught.value)
    assert message.startswith(f"{path}, record ") and "readable record" in message
    # The records after it cannot be read either; shuffling decides which comes first.
    assert 9 <= int(message.partition(", record ")[2].partition(":")[0]) < 24
    with pytest.raises(tf.errors.InvalidArgumentError, match="of-00004, record 9: Expected a read"):
        arrays(load(folder, shuffle_buffer=1).train(BATCH, 0, 0))


def test_a_cut_shard_is_found_before_step_1(folder):
    path = folder / "train-00003-of-00004"
    places, content = spans(path)
    for stop, record in ((places[11][1] - 5, 11), (places[4][0] - 3, 4)):
        path.write_bytes(content[:stop])
        with pytest.raises(ValueError, match=rf"00003-of-00004, record {record}: .* cut short"):
            load(folder)


def test_a_damaged_frame_is_found_before_step_1(folder):
    path = folder / "validation-00001-of-00002"
    places, content = spans(path)
    content[places[3][0] - 12] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="validation-00001-of-00002, record 3: .* damaged frame"):
        load(folder)


def test_an_empty_shard_is_found_before_step_1(folder):
    (folder / "train-00000-of-00004").write_bytes(b"")
    with pytest.raises(ValueError, match="train-00000-of-00004: Expected a shard with records"):
        load(folder)


def test_no_matching_file(folder, tmp_path):
    (tmp_path / "none").mkdir()
    for place in (tmp_path / "none", tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"train-\*.*Received: no such file"):
            load(place)
    for path in folder.glob("validation-*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"validation-\*"):
        load(folder)


def test_a_missing_shard_is_found_before_step_1(folder):
    (folder / "train-00002-of-00004").unlink()
    with pytest.raises(ValueError, match="Expected 4 shards .* missing are numbers 2"):
        load(folder)
    shutil.copy(folder / "train-00001-of-00004", folder / "train-00001-of-00008")
    with pytest.raises(ValueError, match="Expected shards of one set"):
        load(folder)


def test_a_wrong_count_is_found_before_step_1(folder):
    path = folder / "train-00002-of-00004"
    jpegs.write(path, jpegs.read(path)[:-1])
    with pytest.raises(
        ValueError, match="train-00002-of-00004: Expected 24 records.* Received: 23"
    ):
        load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="Expected 1281167 train .* Received: 95 in 4 shards, the"):
        load(folder)
    options = {"num_classes": 10, "num_validation": 96}
    with pytest.raises(ValueError, match="Expected 96 train .* train-00002-of-00004 with 23"):
        load(folder, num_train=96, **options)
    assert load(folder, num_train=95, **options).num_train == 95


@pytest.mark.parametrize(("layout", "label", "expected"), [("original", -1, "0 to 9"),
                         ("original", 10, "0 to 9"), ("usual", 0, "1 to 10"),
                         ("usual", 11, "1 to 10")])  # fmt: skip
def test_a_label_out_of_range_is_found_before_step_1(made, tmp_path, layout, label, expected):
    shutil.copytree(made / layout, tmp_path / "set")
    load(tmp_path / "set")  # an index that is kept must not hide the change
    path = tmp_path / "set" / "validation-00001-of-00002"
    records = jpegs.read(path)
    example = tf.train.Example.FromString(records[13])
    key = tfrecords.LAYOUTS[("original", "usual").index(layout)].label
    example.features.feature[key].int64_list.value[0] = label
    records[13] = example.SerializeToString()
    jpegs.write(path, records)
    with pytest.raises(
        ValueError, match=rf"record 13: Expected {key} from {expected}\. Rec.*: {label}\."
    ):
        load(tmp_path / "set")


def test_other_features_are_found_before_step_1(folder, made):
    path = folder / "train-00001-of-00004"
    shutil.copy(made / "usual" / path.name, path)
    with pytest.raises(ValueError, match=f"{path}: Expected the features of"):
        load(folder)
    example = tf.train.Example()
    example.features.feature["pixels"].bytes_list.value.append(b"x")
    for record, received in ((example.SerializeToString(), "the features pixels"),
                             (b"junk", "not a protocol buffer")):  # fmt: skip
        jpegs.write(path, [record])
        with pytest.raises(ValueError, match=f"{path}, record 0: .*{received}"):
            load(folder)


def test_the_index_is_kept_and_made_anew_when_a_shard_changes(folder, monkeypatch):
    load(folder)
    kept = json.loads((folder / "index-train.json").read_text())
    assert {entry["records"] for entry in kept.values()} == {24} and len(kept) == 4
    asked = []
    index = tfrecords.index_shard
    monkeypatch.setattr(tfrecords, "index_shard", lambda path: asked.append(path) or index(path))
    load(folder)
    assert asked == []
    path = folder / "train-00001-of-00004"
    jpegs.write(path, jpegs.read(path)[::-1])  # of the same size
    load(folder)
    assert asked == [str(path)]
    (folder / "index-train.json").write_text("{")
    load(folder)
    assert len(asked) == 5


def test_an_index_that_cannot_be_kept_is_done_without(folder):
    paths = [str(path) for path in sorted(folder.glob("train-*"))]
    for cache in (str(folder / "nowhere" / "index.json"), None):
        assert [shard.records for shard in tfrecords.index_shards(paths, cache)] == [24] * 4
    assert not (folder / "nowhere").exists()


def test_the_checksum_is_that_of_tfrecord_frames(folder):
    content = (folder / "train-00000-of-00004").read_bytes()
    assert tfrecords.masked_crc32c(content[:8]) == struct.unpack("<I", content[8:12])[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"download": True}, "image-net.org"),
        ({"preprocessing": "vgg"}, "Expected a preprocessing: inception, resnet"),
        ({"image_size": 0}, "Expected image_size >= 1"),
        ({"max_bad_records": -1}, "Expected max_bad_records >= 0"),
        ({"shuffle_buffer": 0}, "Expected shuffle_buffer >= 1"),
        ({"shard_by": "worker"}, "Expected shard_by: record, file"),
    ],
)
def test_options_without_sense(made, options, message):
    with pytest.raises(ValueError, match=message):
        load(made / "original", **options)


def test_no_folder():
    with pytest.raises(FileNotFoundError, match="--data_dir"):
        data.get("imagenet")


def test_a_damaged_manifest(folder):
    (folder / "manifest.json").write_text('{"num_classes": ')
    with pytest.raises(ValueError, match="manifest.json: Expected JSON"):
        load(folder)


def test_the_size_follows_the_preprocessing(made):
    assert load(made / "original", image_size=None).image_shape == (224, 224, 3)
    dataset = load(made / "original", image_size=None, preprocessing="inception")
    assert dataset.image_shape == (299, 299, 3)
    images, _ = next(iter(dataset.validation(2)))
    assert images.shape == (2, 299, 299, 3)
    assert -1.0 <= tf.reduce_min(images) < -0.9 and 0.5 < tf.reduce_max(images) <= 1.0


def test_imagenet_of_tensorflow_datasets(made, tmp_path):
    original = load(made / "original")
    features = tfds.features.FeaturesDict({
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=1000),
        "file_name": tfds.features.Text(),
    })  # fmt: skip
    splits = {
        split: tf.data.Dataset.from_tensor_slices(
            {
                "image": tf.fill([count, 20, 30, 3], tf.constant(200, tf.uint8)),
                "label": tf.range(count, dtype=tf.int64) * 7,
                "file_name": tf.strings.as_string(tf.range(count)),
            }
        )  # fmt: skip
        for split, count in (("train", 40), ("validation", 13))
    }
    version = str(tfds.builder("imagenet2012", data_dir=tmp_path).version)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="imagenet2012", version=version, features=features, split_datasets=splits,
        data_dir=tmp_path, disable_shuffling=True,
    )  # fmt: skip
    dataset = data.get("imagenet2012", data_dir=str(tmp_path), image_size=16)
    assert (dataset.num_train, dataset.num_validation, dataset.num_classes) == (40, 13, 1000)
    assert type(dataset) is type(original)
    (images, labels), (_, last) = arrays(dataset.validation(8))
    assert sorted([*labels, *last]) == [7 * number for number in range(13)]
    grey = (200 / 255 - np.array(preprocessing.MEAN_RGB)) / preprocessing.STDDEV_RGB
    np.testing.assert_allclose(images[0, 8, 8], grey, atol=0.02)
    assert len(arrays(dataset.train(8, 0, 0))) == 5
    for path in tmp_path.glob("imagenet2012/*/*train*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="train.*no such file"):
        data.get("imagenet2012", data_dir=str(tmp_path), image_size=16)
    dataset = data.get(
        "imagenet2012", data_dir=str(tmp_path), image_size=16, splits=("validation",)
    )
    assert len(arrays(dataset.validation(8))) == 2
    with pytest.raises(FileNotFoundError, match="imagenet2012"):
        data.get("imagenet2012", data_dir=str(tmp_path / "none"))
