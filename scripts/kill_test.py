"""Kills a training job again and again, and checks that it ends as if nothing had happened.

    python scripts/kill_test.py --kills=50 -- --alignment=mirror --train_epochs=5

Everything after `--` goes to scripts/train.py. One run is left alone; others are killed with
SIGKILL at random moments and started again with the same command, until there were enough kills.
Each must end with the weights, optimizer slots and metric rows of the first, bit by bit.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

TRAIN = pathlib.Path(__file__).with_name("train.py")


class FailedRun(RuntimeError):
    """A job that ended by itself with an error."""


def command(workdir: pathlib.Path, flags: list[str]) -> list[str]:
    """The command line of a job."""
    return [sys.executable, str(TRAIN), *flags, f"--workdir={workdir}"]


def train(workdir: pathlib.Path, flags: list[str], kill_after: float | None = None) -> bool:
    """Runs a job.

    Args:
        workdir: its run directory; what it says goes to a file beside it.
        flags: of the job.
        kill_after: seconds, or None.

    Returns:
        Whether it was killed before it ended.

    Raises:
        FailedRun: it ended with an error.
    """
    log = workdir.with_suffix(".log")
    with log.open("a") as file:
        job = subprocess.Popen(command(workdir, flags), stdout=file, stderr=file)
        try:
            code = job.wait(kill_after)
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()
            return True
    if code:
        raise FailedRun(f"exit code {code}; see {log}")
    return False


def differences(workdir: pathlib.Path, straight: pathlib.Path) -> list[str]:
    """What two finished runs do not have in common.

    Args:
        workdir: of a run.
        straight: of another.

    Returns:
        Names of tables and tensors.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from neural_alignment.runs import checkpoints

    tables = [
        name
        for name in ("metrics.csv", "layers.csv")
        if (workdir / name).read_bytes() != (straight / name).read_bytes()
    ]
    prefixes = [checkpoints.find(str(run)) for run in (workdir, straight)]
    return tables + checkpoints.differences(*prefixes)


def folder_of(text: str) -> pathlib.Path:
    """The folder that a text names."""
    from neural_alignment.config.options import expand_path

    return pathlib.Path(expand_path(text))


def main() -> int:
    """Runs the jobs; the exit code is 1 where one ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=folder_of, help="for the runs (default: a new one)")
    parser.add_argument("flags", nargs="*", help="after --: flags of scripts/train.py")
    options = parser.parse_args()
    folder = options.folder or pathlib.Path(tempfile.mkdtemp(prefix="kill_test"))
    folder.mkdir(parents=True, exist_ok=True)
    # Without checkpoints in between, a run that is killed early each time would never end.
    flags = ["--epochs_per_checkpoint=0.25", *options.flags]

    began = time.monotonic()
    train(folder / "straight", flags)
    seconds = time.monotonic() - began
    print(f"left alone: {seconds:.0f} s, {folder / 'straight'}", flush=True)
    draw, kills, runs = random.Random(options.seed), 0, 0
    while kills < options.kills:
        workdir = folder / f"killed{runs}"
        while kills < options.kills and train(workdir, flags, draw.uniform(0.2, 1.0) * seconds):
            kills += 1
            print(f"{kills} kills of {options.kills}", flush=True)
        train(workdir, flags)
        runs += 1
        differing = differences(workdir, folder / "straight")
        if differing:
            print(f"{workdir} differs: {', '.join(differing)}", file=sys.stderr)
            return 1
    print(f"{kills} kills, {runs} runs: all ended with the same bits")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FailedRun as error:
        sys.exit(f"error: {error}")
