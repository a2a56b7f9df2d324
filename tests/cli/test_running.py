"""How commands end: one message and an exit code, whatever ended them."""

import os
import signal

import pytest

from neural_alignment.cli import figures, leaderboard, prepare, report, reproduce, running, search
from neural_alignment.cli.running import run
from neural_alignment.config.options import UsageError
from neural_alignment.exits import Interrupted

ENDS = {
    "usage": (UsageError("--runs: expected a folder"), "error: --runs: expected a folder", 2),
    "system": (
        OSError(28, "No space left", "f"),
        f"error: {os.path.abspath('f')}: No space left",
        1,
    ),
    "its own": (LookupError("expected a run"), "error: expected a run", 1),
    "signal": (
        Interrupted(signal.SIGTERM),
        "Stopped by SIGTERM; the same command goes on.",
        128 + signal.SIGTERM,
    ),
    "Ctrl-C": (KeyboardInterrupt(), "Stopped.", 130),
}


@pytest.mark.parametrize("how", ENDS)
def test_one_message_and_the_exit_code(how, capsys):
    error, message, code = ENDS[how]

    def main(argv):
        assert argv == ["program"]
        raise error

    assert run(main, ["program"], (LookupError,)) == code
    assert capsys.readouterr().err == f"{message}\n"


def test_what_is_not_expected_is_not_hidden():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main, ["program"], (LookupError,))


@pytest.mark.parametrize("command", [figures, leaderboard, prepare, report, reproduce, search])
def test_ctrl_c_in_any_command(command, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "parse", stopped)
    monkeypatch.setattr(command.config, "expand", stopped)
    code = command.main(["program", "--outdir=x"])
    assert code == (75 if command is prepare else 130)
    told = capsys.readouterr().err
    assert told.startswith("Stopped")
    assert told.count("\n") == 1


@pytest.mark.parametrize("columns", [None, 80, 40])
def test_a_table_in_a_file_is_not_folded(monkeypatch, capsys, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    made = running.table("rules", ["rule", *["a heading of some words"] * 5])
    made.add_row("sign_symmetry, magnitude=uniform", *["98.23 ± 0.08"] * 5)
    running.to_stdout().print(made)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= (columns or 240)
    assert len(lines) == 6 if columns is None else len(lines) > 6
    assert columns == 40 or any("sign_symmetry, magnitude=uniform" in line for line in lines)
    numbers = [character for line in lines for character in line if character.isdecimal()]
    assert sorted(numbers) == sorted("9823008" * 5)
