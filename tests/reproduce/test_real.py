"""One test for each part on the real files: `pytest -m slow --data-dir=FOLDER tests/reproduce`."""

import csv

import pytest

from neural_alignment import reproduce
from neural_alignment.cli import train

pytestmark = pytest.mark.slow


@pytest.fixture
def data_dir(request):
    folder = request.config.getoption("data_dir")
    if folder is None:
        pytest.skip("no --data-dir with the files")
    return folder


def published(recipe, title, series):
    return next(q for q in reproduce.get(recipe).published if q.title == title).values[series]


def last(workdir, table="metrics.csv"):
    with open(workdir / table, newline="") as file:
        return list(csv.DictReader(file))[-1]


@pytest.mark.parametrize("series", ["BP", "FA", "DFA", "SF", "PFA", "PFA-o"])
def test_mnist_after_the_first_epoch(series, data_dir, tmp_path):
    recipe = reproduce.get("pfa_figure2")
    (preset,) = (s.flags["preset"] for s in recipe.series if s.label == series)
    run = [f"--preset={preset}", "--max_epochs=1", f"--workdir={tmp_path / 'run'}"]
    assert train.main(["train", *run, f"--data_dir={data_dir}"]) == 0
    title = "test accuracy after the first epoch, %"
    (wanted,) = published("pfa_figure2", title, series)
    # One seed; means over five are within a point.
    assert 100.0 * float(last(tmp_path / "run")["val_top1"]) == pytest.approx(wanted, abs=1.5)


@pytest.mark.parametrize(("series", "preset"), [("BP", "makrout_bp"), ("WM", "makrout_wm")])
def test_akrouts_first_epoch(series, preset, data_dir, tmp_path):
    epochs = 2 if series == "WM" else 1  # one of mirroring alone
    run = [f"--preset={preset}", f"--max_epochs={epochs}", f"--workdir={tmp_path / 'run'}"]
    assert train.main(["train", *run, f"--data_dir={data_dir}"]) == 0
    (wanted,) = published("akrout_mnist", "test accuracy after epoch 1, %", series)
    assert 100.0 * float(last(tmp_path / "run")["val_top1"]) == pytest.approx(wanted, abs=2.0)
    if series == "WM":
        title = "angle of the output layer after epoch 1, degrees"
        (angle,) = published("akrout_mnist", title, series)
        of_output = last(tmp_path / "run", "layers.csv")
        assert of_output["layer"] == "dense_output"
        assert float(of_output["weight_angle"]) == pytest.approx(angle, abs=3.0)
