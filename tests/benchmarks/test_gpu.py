"""benchmarks/gpu.py on a CPU, tiny."""

import csv
import os
import subprocess
import sys
import types

import pytest
import tensorflow as tf
from absl import app

from benchmarks import contestants, gpu, gpu_table, step_time
from neural_alignment import extras


def test_rules_are_those_that_are_timed_elsewhere():
    assert set(gpu.RULES) <= set(step_time.RULES)
    assert abs(sum(work.share for work in gpu.NETWORKS.values()) - 1.0) < 1e-9


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"argv": ["gpu.py", "mlp"]}, "Expected flags only. Received: mlp"),
        ({"backend": "torch"}, "Received: KERAS_BACKEND=torch"),
        ({"backend": "jax", "modes": ["graph"]}, "or jax with --modes=xla"),
        ({"output": "."}, "Expected a file as --output. Received: ., a folder"),
        ({"output": ""}, "Expected a file as --output"),
        ({"output": "there.csv"}, "earlier run. Received: there.csv, which is there. Move it"),
        ({"output": None}, "earlier run. Received: gpu_jax.csv, which is there"),
        ({"output": "there.csv/gpu.csv"}, "--output: .*there.csv: .* give a folder"),
        ({"output": "/proc/gpu.csv"}, "--output: /proc/gpu.part: No such file"),
        ({"output": "/proc/out/gpu.csv"}, "--output: /proc/out: No such file"),
        ({"missing": "jax"}, "Expected JAX to be installed. .* pip install"),
        ({"backend": "tensorflow", "missing": "tensorflow"}, "Expected TensorFlow .* pip install"),
        (
            {"tiny": False, "output": "new/gpu.csv"},
            "Expected an accelerator, or --tiny .* Received: CPU; jax",
        ),
    ],
)
def test_wrong_usage_is_told_before_anything_is_compiled(asked, message, monkeypatch, tmp_path):
    given = {"argv": ["gpu.py"], "backend": "jax", "modes": None, "output": "x.csv", "minutes": 5}
    given |= {"tiny": True} | asked
    monkeypatch.chdir(tmp_path)
    for name in ("there.csv", "gpu_jax.csv"):
        (tmp_path / name).touch()
    monkeypatch.setenv("KERAS_BACKEND", given["backend"])
    monkeypatch.setattr(gpu, "FLAGS", types.SimpleNamespace(**given))
    monkeypatch.setattr(
        extras, "missing", lambda *names: [n for n in names if n in asked.get("missing", "")]
    )
    monkeypatch.setattr(contestants, "device", lambda: ("CPU; jax", False))
    with pytest.raises(app.UsageError, match=message):
        gpu.main(given["argv"])
    assert (tmp_path / "there.csv").read_text() == ""
    assert {path.name for path in tmp_path.iterdir()} == {"there.csv", "gpu_jax.csv"}


def test_without_jaxs_cpu_models_are_made_on_the_device(monkeypatch):
    def devices(kind):
        raise RuntimeError(f"Unknown backend: {kind!r} requested")

    monkeypatch.setattr(contestants.keras.backend, "backend", lambda: "jax")
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(devices=devices))
    with contestants.building():
        pass


def timed(monkeypatch, tmp_path, **runs):
    """The rows of steps that are made and compiled already, and what they had in memory."""
    monkeypatch.setattr(gpu, "FLAGS", types.SimpleNamespace(rounds=3))
    table = gpu_table.Table(tmp_path / "gpu.csv", "device")
    ready = {}
    for step, run in runs.items():
        ready[step] = contestants.Contestant(run, 1, 0.0, multiplications=1.0)
    gpu._race("mlp", "xla", ready, gpu.Clock(60.0), table)
    _, *lines = table.path.read_text().splitlines()
    return {row["step"]: row for row in csv.DictReader(lines)}, set(ready)


class Failing:
    """A step that runs a few times, and then raises."""

    def __init__(self, error, times):
        self.error, self.left = error, times

    def __call__(self):
        self.left -= 1
        if self.left < 0:
            raise self.error


NO_MEMORY = {
    "jax": RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."),
    "tensorflow": tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory"),
    "tensorflow, graph": tf.errors.InternalError(None, None, "OOM when allocating tensor"),
    "driver": RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"),
    "python": MemoryError(),
}


@pytest.mark.parametrize("name", NO_MEMORY)
@pytest.mark.parametrize("times", [0, 1, 2, 4])
def test_a_step_that_does_not_fit_leaves_the_others(name, times, monkeypatch, tmp_path):
    failing = Failing(NO_MEMORY[name], times)
    rows, left = timed(monkeypatch, tmp_path, stock=str, mirror=failing, symmetric=str)
    assert rows["mirror"]["note"].startswith("not run: does not fit: ")
    assert left == {"stock", "symmetric"}
    for step in left:
        assert rows[step]["rounds"] == "3" and rows[step]["note"] == ""
    assert rows["mirror"].get("rounds") == (str(times - 2) if times > 2 else "") or times < 2


@pytest.mark.parametrize("times", [0, 2, 4])
def test_without_stock_nothing_is_compared(times, monkeypatch, tmp_path):
    failing = Failing(ValueError("in the zoom room"), times)
    rows, _ = timed(monkeypatch, tmp_path, stock=failing, mirror=str)
    assert rows["stock"]["note"] == "not run: ValueError: in the zoom room"
    assert rows["mirror"]["note"] == "not compared: stock layers did not run"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_was_measured_is_told_where_it_ends_early(error, monkeypatch, tmp_path, capsys):
    def measure(name, work, mode, seconds, table):
        table.set(name, mode, "stock", ms="1.5")
        table.write()
        raise error

    output = str(tmp_path / "gpu.csv")
    given = {"modes": None, "output": output, "minutes": 5, "tiny": True, "networks": ["mlp"]}
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(gpu, "FLAGS", types.SimpleNamespace(batch=None, **given))
    monkeypatch.setattr(contestants, "device", lambda: ("CPU; jax", False))
    monkeypatch.setattr(gpu, "measure", measure)
    with pytest.raises(SystemExit, match=f"(interrupted|No space .*); {output} has the rows"):
        gpu.main(["gpu.py"])
    assert "| mlp | xla | stock | 1.5 |" in capsys.readouterr().out
    assert "mlp,,,xla,stock,1.5" in (tmp_path / "gpu.csv").read_text()


def run(tmp_path, backend, *flags):
    """The rows of a run's file, and what it printed."""
    ran = subprocess.run(
        [sys.executable, gpu.__file__, f"--output={tmp_path / 'out' / 'gpu.csv'}", *flags],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    first, *lines = (tmp_path / "out" / "gpu.csv").read_text().splitlines()
    assert first.startswith("# ") and backend in first
    return list(csv.DictReader(lines)), ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_a_tiny_run(tmp_path, backend):
    flags = ("--tiny", "--networks=mlp", "--rules=information", "--rounds=2", "--minutes=2")
    rows, printed = run(tmp_path, backend, *flags)
    modes = ["xla"] if backend == "jax" else ["graph", "xla"]
    assert [(row["mode"], row["step"]) for row in rows] == [
        (mode, step) for mode in modes for step in ("stock", "information")
    ]
    for row in rows:
        assert row["note"] == "" and row["rounds"] == "2"
        assert float(row["ms"]) > 0.0 and float(row["tflops"]) > 0.0
        assert (backend == "jax") == bool(row["mib"])
        assert (row["ratio"] == "1.000") == (row["step"] == "stock")
        assert row["floor"] == ("1.00" if row["step"] == "stock" else "1.94")
    assert printed.count("| mlp |") == len(rows)


@pytest.mark.slow
def test_what_has_no_time_is_named(tmp_path):
    rows, _ = run(tmp_path, "jax", "--tiny", "--networks=mlp", "--rules=mirror", "--minutes=0")
    assert [(row["step"], row["note"]) for row in rows] == [
        ("stock", "not built: out of time"),
        ("mirror", "not built: out of time"),
    ]
