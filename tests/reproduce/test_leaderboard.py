"""Rules by accuracy, from run directories."""

import math

import pytest

from neural_alignment.cli import leaderboard as command
from neural_alignment.reproduce import leaderboard
from tests.figures.made_runs import make_run

HEAD = "epoch,global_step,layer,weight_angle,norm_ratio,alignment_loss,error_angle\n"


def made(folder, rule, top1, angles=(), flags=(), preset=None, epoch=2):
    """A run directory as the trainer leaves it."""
    folder.mkdir(parents=True)
    lines = [f"--alignment={rule}", "--train_epochs=2", "--defaults=none", *flags]
    head = [f"# --preset={preset}"] if preset else []
    (folder / "flags.cfg").write_text("\n".join([*head, *lines]) + "\n")
    (folder / "metrics.csv").write_text(
        "epoch,global_step,loss,alignment_loss,val_loss,val_top1,val_top5\n"
        f"{epoch},20,0.1,0.0,0.1,{top1},1.0\n"
    )
    rows = [f"{epoch},20,dense{i},{w},1.0,0.0,{e}\n" for i, (w, e) in enumerate(angles)]
    (folder / "layers.csv").write_text(HEAD + "".join(rows))


@pytest.fixture
def runs(tmp_path):
    made(tmp_path / "bp-0", "backprop", 0.9)
    made(tmp_path / "bp-1", "backprop", 0.92, flags=["--seed=1"])
    made(tmp_path / "aa", "activation", 0.95, [(10, 20), (30, math.nan)], preset="mine")
    made(tmp_path / "lenet", "mirror", 0.5, [(80, 70)], ["--model=lenet5", "--image_size=16"])
    made(tmp_path / "begun", "feedback", 0.99, epoch=1)
    return tmp_path


def test_rows_are_sorted_by_task_and_accuracy(runs):
    rows, notes = leaderboard.rows([runs])
    assert [(r.task, r.rule, r.seeds) for r in rows] == [
        ("digits, fc", "activation", 1),
        ("digits, fc", "backprop", 2),
        ("digits, lenet5, 16 pixels", "mirror", 1),
    ]
    best, bp, mirror = rows
    assert (best.top1, best.settings, best.operations) == (pytest.approx(95.0), "mine", 2)
    assert (best.weight_angle, best.error_angle) == (20.0, 20.0)
    assert (bp.top1, bp.top1_sd) == (pytest.approx(91.0), pytest.approx(math.sqrt(2.0)))
    assert math.isnan(bp.weight_angle) and bp.settings == "defaults"
    assert notes == [f"{runs / 'begun'} is left out: it has not ended"]


def test_the_table_is_read_back(runs):
    rows, _ = leaderboard.rows([runs])
    again = leaderboard.from_csv(leaderboard.to_csv(rows))
    assert leaderboard.to_markdown(again) == leaderboard.to_markdown(rows)
    text = leaderboard.to_markdown(rows)
    assert "| backprop | 91.00 ± 1.41 | – | – | 0 | 2 | 2 | defaults |" in text


@pytest.mark.parametrize(
    ("rule", "flags", "operations"),
    [
        ("mine", ["--mine_coef=1", "--import=mine.py"], None),  # of the user's own
        ("mirror", ["--sum_batches=true"], 2),  # of another version
        ("mirror", ["--amp_coef=much"], None),
        ("mirror", ["--input_distribution=none"], 1),
    ],
)
def test_runs_of_other_rules_and_versions_are_rows_too(tmp_path, rule, flags, operations):
    made(tmp_path / "run", rule, 0.9, flags=flags)
    (row,), notes = leaderboard.rows([tmp_path])
    assert (row.rule, row.top1, row.operations) == (rule, pytest.approx(90.0), operations)
    assert leaderboard.to_markdown(leaderboard.from_csv(leaderboard.to_csv([row]))) == (
        leaderboard.to_markdown([row])
    )


def test_images_of_ones_own_are_a_task_each(tmp_path):
    for name, folder, seed in (("a", "/data/birds", 0), ("b", "birds/", 1), ("c", "flowers", 0)):
        flags = [f"--data_dir={folder}", "--dataset=image_folder", f"--seed={seed}"]
        made(tmp_path / name, "mirror", 0.9, flags=flags)
    found, _ = leaderboard.rows([tmp_path])
    assert [(row.task.partition(",")[0], row.rule, row.seeds) for row in found] == [
        ("image_folder birds", "mirror", 2),
        ("image_folder flowers", "mirror", 1),
    ]


def test_command(runs, tmp_path, capfd):
    assert command.main(["leaderboard", str(runs), f"--outdir={tmp_path / 'board'}"]) == 0
    said = capfd.readouterr()
    assert "lenet5" in said.out and "it has not ended" in said.err
    assert (tmp_path / "board/leaderboard.csv").read_text().startswith("task,rule,settings")
    assert "digits, fc:" in (tmp_path / "board/leaderboard.md").read_text()
    assert command.main(["leaderboard", "--help"]) == 0
    assert "--outdir=PATH" in capfd.readouterr().out


@pytest.mark.parametrize(("given", "code"), [([], 2), (["nowhere"], 1), (["--what=1"], 2)])
def test_wrong_usage(given, code, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert command.main(["leaderboard", *given]) == code
    assert "error: " in capfd.readouterr().err


def test_what_is_no_row_is_said(tmp_path, capfd):
    lost = make_run(tmp_path / "lost", epochs=2, train_epochs=2)
    head, *rows = (lost / "metrics.csv").read_text().splitlines()
    rows[-1] = ",".join([*rows[-1].split(",")[:2], *["nan"] * 5])
    (lost / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")
    assert command.main(["leaderboard", str(lost)]) == 1
    said = capfd.readouterr().err
    assert f"{lost} is left out: its last top-1 is no number" in said
    assert "error: Expected runs that have ended. Received: none" in said
    make_run(tmp_path / "a", seed=1, epochs=2, train_epochs=2)
    out = tmp_path / "out"
    assert command.main(["leaderboard", str(tmp_path), f"--outdir={out}"]) == 0
    printed = capfd.readouterr().out
    assert all(f"{out}/leaderboard.{ending}\n" in printed for ending in ("csv", "md"))
