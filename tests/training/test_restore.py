"""A run's model in Python, and the features of its layers."""

import csv

import numpy as np
import pytest

from neural_alignment import data
from neural_alignment.cli import command
from neural_alignment.cli import figures as figures_command
from neural_alignment.config import UsageError
from neural_alignment.figures.assembly import AssemblyError
from neural_alignment.figures.features import layer_features
from neural_alignment.runs.checkpoints import CheckpointError
from neural_alignment.training import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    flags = ["--alignment=symmetric", "--layers_list=12,8", "--train_epochs=2", "--seed=3"]
    assert command.run("train", ["train", *flags, f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def validation():
    images, labels = next(iter(data.get("digits").validation(1000)))
    return np.asarray(images), np.asarray(labels)


def test_the_model_has_the_accuracy_of_its_row(run, validation):
    images, labels = validation
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        model = load_run(run, int(row["global_step"]))
        found = model.predict(images, verbose=0).argmax(axis=1) == labels
        assert found.mean() == pytest.approx(float(row["val_top1"]))
    assert rows[0]["val_top1"] != rows[1]["val_top1"]
    newest = [variable.numpy() for variable in load_run(run).variables]
    assert all(np.array_equal(a, b) for a, b in zip(newest, model.variables, strict=True))


def test_what_is_no_run_is_refused(run, tmp_path):
    for folder in (tmp_path, tmp_path / "none", run / "metrics.csv"):
        with pytest.raises(UsageError, match="expected a run directory. Received"):
            load_run(folder)
    with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
        load_run(run, 7)


def test_features_of_layers(run, validation):
    images, _ = validation
    model = load_run(run)
    found = layer_features(model, images)
    shapes = [values.shape for name, values in found.items() if name.startswith("dense")]
    assert shapes == [(len(images), 12), (len(images), 8), (len(images), 10)]
    assert found["dense_output"] == pytest.approx(model.predict(images, verbose=0), abs=1e-5)
    assert list(layer_features(model, images, ["dense1"])) == ["dense1"]
    with pytest.raises(AssemblyError, match="Received: 'dense7'"):
        layer_features(model, images, ["dense7"])
    with pytest.raises(AssemblyError, match=r"Expected images \[images, 8, 8, 1\]"):
        layer_features(model, images[:, :4])


def test_predictivity_of_a_run(run, validation, tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("sklearn")
    images, labels = validation
    signal = layer_features(load_run(run), images, ["dense0"])["dense0"]
    draw = np.random.default_rng(0)
    signal = np.tanh(signal @ draw.standard_normal((12, 10)))[:, None, None]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["responses"] = signal + 0.1 * draw.standard_normal((len(images), 4, 10, 10))
        file["bin_start"] = np.arange(70.0, 170.0, 10.0)
        file["category"], file["pixels"] = labels, images
    given = [f"--assembly={tmp_path / 'a.h5'}", f"--features={run}", "--layers=dense0,dense1"]
    given += [f"--outdir={tmp_path}", "--format=svg", "--figure=predictivity"]
    assert figures_command.main(["figures", *given]) == 0
    assert "best layer: dense0" in capsys.readouterr().err
