"""benchmarks/start_time.py, and that TensorFlow's cache for what XLA compiles is read again."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks import start_time


@pytest.mark.slow
def test_xla_reads_what_an_earlier_process_has_compiled(tmp_path):
    environment = {
        **os.environ,
        "TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={tmp_path}",
    }
    seconds, files = [], []
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, str(pathlib.Path(start_time.__file__)), "--model=mlp", "--jit"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        parts = dict(re.findall(r"\| ([a-zA-Z, ]+) \| ([0-9.]+) \|", ran.stdout))
        assert list(parts)[-1] == "second step"
        seconds.append(float(parts["first step, compiled"]))
        files.append({path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()})
    assert files[0]
    assert files[0] == files[1]
    assert seconds[1] < 0.7 * seconds[0]
