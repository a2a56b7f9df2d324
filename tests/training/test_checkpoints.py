"""Checkpoints: whole or not there, checked, matched by name."""

import json
import logging
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf

from neural_alignment.runs import checkpoints
from neural_alignment.runs.checkpoints import CheckpointError, Checkpoints

VALUES = {
    "global_step": np.int64(7),
    "model/dense/kernel": np.arange(6, dtype="float32").reshape(2, 3),
    "optimizer_0/momentum": np.linspace(0, 1, 3, dtype="float32"),
}


def variables(**changes):
    return {name: tf.Variable(tf.zeros_like(value)) for name, value in (VALUES | changes).items()}


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 5 and 7."""
    made = Checkpoints(str(tmp_path / "checkpoints"))
    for step in (5, 7):
        made.save(step, VALUES | {"global_step": np.int64(step)})
    return made


def damage(made, step, how):
    data = f"{made.prefix(step)}.data-00000-of-00001"
    with open(data, "r+b") as file:
        content = file.read()
        if how == "cut":
            file.truncate(len(content) - 1)
        elif how == "flipped":
            file.seek(len(content) // 2)
            file.write(bytes([content[len(content) // 2] ^ 1]))
    if how == "missing":
        tf.io.gfile.remove(data)
    elif how == "json":
        with open(f"{made.prefix(step)}.json", "w") as file:
            file.write('{"step"')


def test_round_trip(saved):
    restored = variables()
    saved.restore(7, restored)
    for name, value in VALUES.items():
        np.testing.assert_array_equal(restored[name].numpy(), value)
    assert saved.steps() == [5, 7]
    reader = tf.train.load_checkpoint(saved.prefix(7))
    assert set(reader.get_variable_to_shape_map()) == set(VALUES)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "bytes, not"),
        ("flipped", "does not have the checksum"),
        ("missing", "is missing"),
        ("json", "is unreadable"),
    ],
)
def test_damage_is_named_and_the_one_before_is_used(saved, caplog, how, said):
    damage(saved, 7, how)
    with caplog.at_level(logging.WARNING):
        assert saved.newest_whole() == 5
    assert "step 7 is damaged" in caplog.text and said in caplog.text
    with pytest.raises(CheckpointError, match="is damaged.*" + said):
        saved.restore(7, variables())
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.find(saved.prefix(7))


def test_none_whole_is_an_error(saved):
    damage(saved, 5, "cut")
    damage(saved, 7, "flipped")
    with pytest.raises(CheckpointError, match="(?s)every checkpoint.*step 7.*step 5"):
        saved.newest_whole()


def test_lost_json_files_are_an_error(saved):
    for step in saved.steps():
        tf.io.gfile.remove(f"{saved.prefix(step)}.json")
    with pytest.raises(CheckpointError, match="5, 7.*lack"):
        saved.newest_whole()


def test_an_unfinished_checkpoint_does_not_exist(saved, caplog):
    tf.io.gfile.remove(f"{saved.prefix(7)}.json")
    assert saved.newest_whole() == 5
    shutil.copy(f"{saved.prefix(5)}.index", f"{saved.prefix(6)}.index.tempstate123")
    saved.save(9, VALUES)
    assert saved.steps() == [5, 9]
    names = tf.io.gfile.listdir(saved.folder)
    assert not [name for name in names if "step-000000007" in name or "tempstate" in name]


def test_only_one_and_unfinished(tmp_path, caplog):
    made = Checkpoints(str(tmp_path))
    assert made.newest_whole() is None
    made.save(3, VALUES)
    tf.io.gfile.remove(f"{made.prefix(3)}.json")
    assert made.newest_whole() is None
    assert "unfinished" in caplog.text


def test_the_newest_are_kept(tmp_path):
    made = Checkpoints(str(tmp_path), keep=2)
    for step in (1, 2, 3, 4):
        made.save(step, VALUES)
    assert made.steps() == [3, 4]
    # Going back from a damaged one: what is saved now is the newest, however few are kept.
    alone = Checkpoints(str(tmp_path), keep=1)
    alone.save(2, VALUES)
    assert alone.steps() == [2]
    assert alone.damage(2) is None


def test_some_are_kept_always_and_count_for_none_of_the_newest(tmp_path):
    made = Checkpoints(str(tmp_path), keep=1, always=(1, 3, 9))
    for step in (1, 2, 3, 4, 5):
        made.save(step, VALUES)
    assert made.steps() == [1, 3, 5]
    made.save(2, VALUES)  # going back: what comes later is of another course
    assert made.steps() == [1, 2]


def test_saving_again_replaces_a_damaged_one(saved):
    damage(saved, 7, "flipped")
    saved.save(7, VALUES)
    assert saved.newest_whole() == 7


@pytest.mark.parametrize("bytes_free", [0, 100])
def test_no_space_left(saved, bytes_free):
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_free, hard))
    try:
        with pytest.raises(CheckpointError, match="(?s)could not write.*step 9.*steps 5, 7.*space"):
            saved.save(9, VALUES | {"model/large": np.zeros(10_000, "float32")})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert saved.newest_whole() == 7
    assert saved.damage(5) is None
    assert not [name for name in tf.io.gfile.listdir(saved.folder) if "000009" in name]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not write"):
        Checkpoints(str(tmp_path / "file/checkpoints")).save(1, VALUES)


def test_names_and_shapes_must_match(saved):
    lacking = variables(**{"model/dense/bias": np.zeros(3, "float32")})
    with pytest.raises(CheckpointError, match="lacks model/dense/bias"):
        saved.restore(7, lacking)
    too_many = variables()
    del too_many["optimizer_0/momentum"]
    with pytest.raises(CheckpointError, match="has optimizer_0/momentum too many"):
        saved.restore(7, too_many)
    other = variables(**{"model/dense/kernel": np.zeros((3, 2), "float32")})
    with pytest.raises(CheckpointError, match=r"model/dense/kernel has shape \(2, 3\), not \(3, 2"):
        saved.restore(7, other)
    for name in ("optimizer_0/momentum", "model/dense/kernel"):
        assert not lacking[name].numpy().any()


def test_dots_in_the_names_of_version_0_1(tmp_path):
    old, value = "model/block_group1_0.conv1.batch_normalization/gamma", np.ones(3, "float32")
    made = Checkpoints(str(tmp_path / "checkpoints"))
    made.save(5, {old: value})
    variable = tf.Variable(tf.zeros(3))
    made.restore(5, {old.replace(".", "_"): variable})
    np.testing.assert_array_equal(variable.numpy(), value)
    with pytest.raises(CheckpointError, match="it lacks model/other/gamma"):
        made.restore(5, {"model/other/gamma": variable})


def test_find(saved, tmp_path):
    for path in (str(tmp_path), saved.folder, saved.prefix(7), f"{saved.prefix(7)}.index"):
        assert checkpoints.find(path) == saved.prefix(7)
    assert checkpoints.find(str(tmp_path), 5) == saved.prefix(5)
    with pytest.raises(CheckpointError, match="no checkpoint of step 6.*5, 7"):
        checkpoints.find(str(tmp_path), 6)
    with pytest.raises(CheckpointError, match="of step 7, not 5"):
        checkpoints.find(saved.prefix(7), 5)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoints.find(str(tmp_path / "elsewhere"))


def test_files_that_are_no_checkpoint(saved, tmp_path):
    prefix = str(tmp_path / "other")
    shutil.copy(f"{saved.prefix(7)}.index", f"{prefix}.index")
    with open(f"{prefix}.index", "r+b") as file:
        file.truncate(20)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.assign(prefix, variables())
    shutil.copy(f"{saved.prefix(7)}.index", f"{prefix}.index")
    with open(f"{prefix}.data-00000-of-00001", "w") as file:
        file.write("short")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.assign(prefix, variables())


def test_differences(saved):
    assert checkpoints.differences(saved.prefix(5), saved.prefix(7)) == ["global_step"]
    saved.save(8, VALUES | {"model/dense/kernel": -VALUES["model/dense/kernel"], "new": 1.0})
    # -0.0 equals 0.0, but its bits do not.
    assert checkpoints.differences(saved.prefix(7), saved.prefix(8)) == [
        "model/dense/kernel",
        "new",
    ]


def test_manifest_says_sizes_and_checksums(saved):
    with open(f"{saved.prefix(5)}.json") as file:
        manifest = json.load(file)
    assert manifest["step"] == 5
    assert len(manifest["files"]) == 2
    assert all(set(entry) == {"bytes", "sha256"} for entry in manifest["files"].values())


def test_not_finite():
    values = {"fine": np.ones(2), "nan": np.array([1.0, np.nan]), "inf": np.float32(np.inf)}
    assert checkpoints.not_finite(values | {"whole": np.int32(3)}) == ["inf", "nan"]
