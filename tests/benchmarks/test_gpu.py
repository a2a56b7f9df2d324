"""benchmarks/gpu.py on a CPU, tiny."""

import csv
import os
import subprocess
import sys
import types

import pytest
from absl import app

from benchmarks import gpu, step_time


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
    ],
)
def test_wrong_usage_is_told_before_anything_is_compiled(asked, message, monkeypatch):
    given = {"argv": ["gpu.py"], "backend": "jax", "modes": None, "output": "x.csv"} | asked
    monkeypatch.setenv("KERAS_BACKEND", given["backend"])
    monkeypatch.setattr(gpu, "FLAGS", types.SimpleNamespace(**given))
    with pytest.raises(app.UsageError, match=message):
        gpu.main(given["argv"])


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
