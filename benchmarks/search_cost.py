"""What scripts and searches cost beside training: the help, a trial, and two trials at a time.

    python -m benchmarks.search_cost --trials=10

Needs an idle machine; prints seconds, and asserts nothing.
"""

from __future__ import annotations

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
SPACE = "wm_ad_ops_digits"
SCRIPTS = ("train.py", "evaluate.py", "search.py")


def run(*arguments: str) -> float:
    """The wall-clock seconds of a script.

    Args:
        *arguments: its name in scripts/, and its flags.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "scripts" / arguments[0]), *arguments[1:]]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {ended.stdout}{ended.stderr}")
    return time.monotonic() - began


def help_seconds(script: str, repeats: int = 5) -> float:
    """The least processor seconds of `--help`: what the import of the flags costs.

    Args:
        script: its name in scripts/.
        repeats: how often it is measured, after one that compiles.
    """
    seconds = []
    for _ in range(repeats + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(script, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds[1:])


def search(folder: pathlib.Path, *more: str) -> float:
    """The seconds of a search of the digits."""
    return run("search.py", f"--space={SPACE}", f"--searchdir={folder}", "--devices=cpu", *more)


def job_seconds(folder: pathlib.Path) -> float:
    """The seconds that a search's trials took in their jobs."""
    lines = (folder / "trials.jsonl").read_text().splitlines()
    return sum(json.loads(line)["seconds"] for line in lines)


def main(argv: list[str]) -> None:
    """Measures and prints."""
    del argv
    trials = flags.FLAGS.trials
    for script in SCRIPTS:
        print(f"{script} --help: {help_seconds(script):.2f} s of one core", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        more = (f"--trials={trials}", "--max_epochs=3")
        whole = search(folder / "s", *more)
        jobs = job_seconds(folder / "s")
        print(f"{trials} trials: {whole:.1f} s, of it in their jobs {jobs:.1f} s", flush=True)
        more = (f"--trials={trials}", "--max_epochs=9", "--algorithm=random")
        one = search(folder / "one", *more, "--parallel=1")
        two = search(folder / "two", *more, "--parallel=2")
        print(f"one at a time {one:.1f} s, two {two:.1f} s, ratio {two / one:.3f}")


if __name__ == "__main__":
    flags.DEFINE_integer("trials", 8, "trials of each search", lower_bound=1)
    app.run(main)
