"""What a job says of data that cannot be used, when it says it, and what it needs to evaluate."""

import shutil

import pytest

from neural_alignment import config
from neural_alignment.config import UsageError
from neural_alignment.data.imagenet import ImageNet
from neural_alignment.runs.checkpoints import CheckpointError
from neural_alignment.runs.directory import RunDirectoryError
from neural_alignment.training import job
from tests.data import jpegs

BATCH = 16


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "set"
    jpegs.make(folder, image_size=16)
    return folder


def _flags(data_dir, workdir, *more):
    """Flags of a run of seconds."""
    return config.parsed([
        "job", "--dataset=imagenet", f"--data_dir={data_dir}", f"--workdir={workdir}",
        "--image_size=16", "--layers_list=8", f"--train_batch_size={BATCH}", "--train_epochs=1",
        *more,
    ])  # fmt: skip


def test_what_needs_no_data_is_told_before_they_are_looked_for(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/flags.cfg").write_text("--seed=3\n")
    nothing = tmp_path / "nothing"
    with pytest.raises(RunDirectoryError, match="was --seed=3"):
        job.train(_flags(nothing, tmp_path / "run"))
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        job.train(_flags(nothing, tmp_path / "new", f"--load_checkpoint={tmp_path}/none"))
    fv = _flags(nothing, tmp_path / "new", "--train_batch_size=15")
    with pytest.raises(UsageError, match="--dataset=imagenet: Expected TFRecord files"):
        job.train(fv)
    make_strategy = job.make_strategy

    def on_two(*given, **options):
        made = make_strategy(*given, **options)
        monkeypatch.setattr(type(made), "num_replicas_in_sync", 2)
        return made

    monkeypatch.setattr(job, "make_strategy", on_two)
    with pytest.raises(UsageError, match="--train_batch_size: expected a multiple of the 2"):
        job.train(fv)
    assert not (tmp_path / "new").exists()


def test_storage_that_fails_is_one_message(tmp_path):
    place = "nothing://bucket/imagenet"  # TensorFlow raises its own kind of error for it
    with pytest.raises(OSError, match=f"--data_dir={place}: Expected storage .* Unimplemented"):
        job.train(_flags(place, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class Workers:
    """So many workers of two devices."""

    def __init__(self, count):
        self.num_replicas_in_sync = 2 * count
        self.extended = type("Extended", (), {"worker_devices": ("one", "two")})


def test_files_that_do_not_divide_are_told_before_a_run_is_begun(digits, tmp_path, monkeypatch):
    fv = _flags(digits, tmp_path / "run", "--train_batch_size=12", "--shard_by=file")
    settings = config.read(fv)
    dataset = job.load_dataset(settings)
    job._check_shares(settings, dataset, Workers(2))
    with pytest.raises(UsageError, match="--shard_by=file: Expected 32 training records .*of 3"):
        job._check_shares(settings, dataset, Workers(3))

    check = ImageNet.check_shares
    monkeypatch.setattr(ImageNet, "check_shares", lambda self, batch, _: check(self, batch, 3))
    with pytest.raises(UsageError, match="--shard_by=file"):
        job.train(fv)
    assert not (tmp_path / "run").exists()


def test_evaluating_takes_validation_shards_only(digits, tmp_path):
    row = job.train(_flags(digits, tmp_path / "run"))
    (tmp_path / "set").mkdir()
    for path in [*digits.glob("validation-*"), digits / "manifest.json"]:
        shutil.copy(path, tmp_path / "set")
    more = (f"--load_checkpoint={tmp_path}/run", "--train_batch_size=1000")
    measured = job.evaluate(_flags(tmp_path / "set", tmp_path / "run", *more))
    assert measured == {name: row[name] for name in measured}
