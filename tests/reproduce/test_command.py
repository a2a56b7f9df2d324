"""`neural-alignment reproduce`: what is run, what is not run again, what is written."""

import pathlib
import re
import shutil
import sys

import pytest

from neural_alignment.cli import reproduce as command
from neural_alignment.cli import train
from neural_alignment.lock import FileLock
from neural_alignment.reproduce import jobs, recipe, results, runner

RECIPE = """
title = "two rules on the digits"
source = "nobody, figure 0"
seeds = 2
cost = "a second"
figures = ["curves", "angles", "noise"]
note = "It is tiny."

[flags]
dataset = "digits"
layers_list = "4"
train_epochs = 2
train_batch_size = 256
strategy = "one_device"

[[series]]
label = "BP"
flags = { alignment = "backprop" }

[[series]]
label = "SA"
flags = { alignment = "symmetric", drops = "1", constant_lr = false, warmup_epochs = 0 }

[[published]]
title = "accuracy, %"
measure = "val_top1"
values = { BP = [90.0, 0.5], SA = 80.0 }

[[published]]
title = "accuracy after the first epoch, %"
measure = "val_top1"
epoch = 1
values = {}

[[published]]
title = "accuracy after 2 epochs, %"
measure = "val_top1"
epoch = 2
values = {}

[[published]]
title = "angles, degrees"
measure = "weight_angle"
values = { SA = [10, 20] }
"""


class HereLauncher:
    """Runs a job in this process, at once."""

    started: list[list[str]] = []

    def __init__(self, *given):
        pass

    def start(self, argv, environment, log):
        assert argv[:2] == ["-m", runner.TRAINER]
        self.started.append(list(argv[2:]))
        self.pid, self._code = 0, train.main(["train", *argv[2:]])
        return self

    def poll(self):
        return self._code

    def close(self):
        pass


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """The folder of a recipe's runs, and what the command said."""
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "recipes").mkdir()
    (folder / "recipes/tiny.toml").write_text(RECIPE)
    (folder / "recipes/real.toml").write_text(f'data = "mnist"\n{RECIPE}')
    head = RECIPE[: RECIPE.index("figures")]
    (folder / "recipes/theory.toml").write_text(f'{head}\nseries = []\nfigures = ["gradient_flow"]')
    return folder


@pytest.fixture(autouse=True)
def _here(monkeypatch, there):
    monkeypatch.setattr(recipe, "RECIPES", there / "recipes")
    monkeypatch.setattr(command, "ForkServer", HereLauncher)
    monkeypatch.setattr(command.devices, "has_gpu", lambda: False)
    HereLauncher.started.clear()


def run(there, *arguments):
    return command.main(["reproduce", "tiny", f"--outdir={there / 'out'}", *arguments])


def test_runs_compares_draws_and_runs_nothing_again(there, capfd):
    assert run(there, "--seeds=1") == 0
    assert len(HereLauncher.started) == 2
    assert run(there) == 0
    assert len(HereLauncher.started) == 4  # seed 0 was there
    out = there / "out/tiny"
    assert {path.name for path in out.iterdir()} >= {"BP", "SA", "table.csv", "table.md"}
    said = capfd.readouterr().out
    assert "It is tiny." in said and "4 runs, 2 of them there" in said
    first, second = re.findall(
        r"done after 0:\d\d; (\d of \d)(, 0:\d\d left)?$", said, re.MULTILINE
    )[-2:]
    assert first[0] == "1 of 2" and first[1] and second == ("2 of 2", "")
    assert "noise is not drawn: " in said
    assert (out / "figures/curves.png").stat().st_size > 1000
    rows = {(r.quantity, r.series): r for r in results.from_csv((out / "table.csv").read_text())}
    assert len(rows) == 7  # backprop has no angles
    bp, angles = rows["accuracy, %", "BP"], rows["angles, degrees", "SA"]
    assert (bp.published, bp.published_sd, bp.seeds) == ((90.0,), 0.5, 2)
    assert 0.0 < bp.ours[0] <= 100.0 and bp.ours_sd[0] >= 0.0 and bp.seconds is not None
    assert angles.published == (10.0, 20.0) and len(angles.ours) == 2
    table = (out / "table.md").read_text()
    assert f"| BP | 90.00 ± 0.50 | {bp.ours[0]:.2f} ± {bp.ours_sd[0]:.2f} |" in table
    HereLauncher.started.clear()
    assert run(there) == 0
    assert HereLauncher.started == []
    before = (out / "table.csv").read_text()
    assert (
        run(there, "--only=SA", "--seeds=1", "--nodraw") == 0
    )  # the table is of all that is there
    assert (out / "table.csv").read_text() == before


def test_a_shorter_run_has_a_folder_of_its_own_and_is_said_to_be(there, capfd):
    assert run(there, "--seeds=1", "--scale=0.5", "--only=SA", "--nodraw") == 0
    (argv,) = HereLauncher.started
    assert {"--train_epochs=1.0", "--drops=0.5"} <= set(argv)
    said, notes = capfd.readouterr()
    assert "0.5 of the recipe's length, every schedule with it: not the published setting" in said
    left_out = (
        "note: accuracy after the first epoch, %: left out, as no epoch ends after 0.5 epochs"
    )
    assert notes.count("left out") == 1 and left_out in notes
    rows = results.from_csv((there / "out/tiny-x0.5/table.csv").read_text())
    after = "accuracy after 2 epochs, % (here after 1)"
    assert {row.quantity for row in rows} == {"accuracy, %", after, "angles, degrees"}


def test_a_run_that_ends_within_an_epoch_is_done(there, capfd):
    """0.37 of 2 epochs of 5 steps are 3 steps, or 0.6 epochs."""
    assert run(there, "--seeds=1", "--scale=0.37", "--only=BP", "--nodraw") == 0
    assert run(there, "--seeds=1", "--scale=0.37", "--only=BP", "--nodraw") == 0
    assert len(HereLauncher.started) == 1
    rows = results.from_csv((there / "out/tiny-x0.37/table.csv").read_text())
    after = "accuracy after 2 epochs, % (here after 0.74)"
    assert {row.quantity for row in rows} == {"accuracy, %", after}


def test_nothing_is_run_where_it_must_not_be(there, capfd):
    assert command.main(["reproduce", "tiny", f"--outdir={there / 'none'}", "--notrain"]) == 1
    said = capfd.readouterr().err
    assert f"Expected runs that are done in {there}/none/tiny. Received: none" in said
    assert HereLauncher.started == []
    assert not (there / "none").exists()


def test_a_run_with_other_flags_is_not_taken_for_this_one(there, tmp_path, monkeypatch, capfd):
    (job, *_) = jobs.jobs(recipe.get("tiny"), tmp_path)
    job.workdir.mkdir(parents=True)
    (job.workdir / "flags.cfg").write_text(
        "--alignment=backprop\n--dataset=digits\n--defaults=none\n"
    )
    (job.workdir / "metrics.csv").write_text("epoch\n")
    assert command.main(["reproduce", "tiny", f"--outdir={tmp_path}"]) == 1
    assert "holds a run with other flags" in capfd.readouterr().err
    assert HereLauncher.started == []


def test_a_job_that_fails_is_named_and_the_others_go_on(there, tmp_path, monkeypatch, capfd):
    text = RECIPE.replace('alignment = "backprop"', 'alignment = "backprop", image_size = 8')
    (tmp_path / "broken.toml").write_text(text)
    monkeypatch.setattr(recipe, "RECIPES", tmp_path)
    real = train.main
    monkeypatch.setattr(train, "main", lambda argv: 1 if "--image_size=8" in argv else real(argv))
    code = command.main(["reproduce", "broken", "--seeds=1", f"--outdir={tmp_path}", "--nodraw"])
    assert code == 1
    said = capfd.readouterr()
    assert "BP seed-0: failed" in said.out and "BP seed-0 failed" in said.err
    assert {r.series for r in results.from_csv((tmp_path / "broken/table.csv").read_text())} == {
        "SA"
    }


def test_a_run_that_another_process_has_under_way_is_left_to_it(there, tmp_path, capfd):
    """Of two commands on one folder each does what the other has not begun."""
    shutil.copytree(there / "out/tiny/SA", tmp_path / "tiny/SA")
    folder = tmp_path / "tiny/BP/seed-0"
    with FileLock(folder / "lock", "workdir"):
        folder.with_name("seed-0.log").write_text("of the other\n")
        code = command.main(["reproduce", "tiny", "--seeds=1", f"--outdir={tmp_path}", "--nodraw"])
    assert code == 1 and HereLauncher.started == []
    said = capfd.readouterr()
    assert "BP seed-0: under way in another process, left to it; 1 of 1" in said.out
    assert "error: BP seed-0 is under way in another process" in said.err
    assert folder.with_name("seed-0.log").read_text() == "of the other\n"
    assert (tmp_path / "tiny/table.csv").exists()


# Tables of a run as files get, and what the command says of them.
SPOILT = {
    "layers of text": (
        "layers.csv",
        lambda text: text.replace("dense", "7,dense", 1),
        "cells under",
    ),
    "layers that are none": ("layers.csv", lambda text: "epoch\n1\n", "no column global_step"),
    "metrics cut within a row": ("metrics.csv", lambda text: text[:-40], "Put the file back"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_table_is_one_message(case, there, tmp_path, capfd):
    name, change, said = SPOILT[case]
    shutil.copytree(there / "out/tiny/SA", tmp_path / "tiny/SA")
    path = tmp_path / "tiny/SA/seed-0" / name
    path.write_text(change(path.read_text()))
    arguments = ["--only=SA", "--seeds=1", "--notrain", f"--outdir={tmp_path}", "--nodraw"]
    assert command.main(["reproduce", "tiny", *arguments]) == 1
    text = capfd.readouterr().err
    assert text.startswith("error: Expected") and f"SA/seed-0/{name}" in text and said in text


def test_what_is_refused_once_is_not_tried_again(there, tmp_path, monkeypatch, capfd):
    class Refusing(HereLauncher):
        def start(self, argv, environment, log):
            log.write_text("TensorFlow says hello\nerror: --dataset=mnist: expected a folder.\n")
            self.started.append(argv)
            self._code = 2
            return self

    monkeypatch.setattr(command, "ForkServer", Refusing)
    assert command.main(["reproduce", "tiny", f"--outdir={tmp_path}"]) == 1
    assert len(Refusing.started) == 1
    said = capfd.readouterr().err
    assert "BP seed-0 is refused: --dataset=mnist: expected a folder. The same command" in said


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "expected one of real, theory, tiny"),
        (["tiny", "tiny"], "expected one of"),
        (["tinny"], "did you mean 'tiny'"),
        (["tiny", "--seeds=0"], "seeds"),
        (["tiny", "--scale=0"], "scale"),
        (["tiny", "--parallel=0"], "parallel"),
        (["tiny", "--only=XX"], "only: expected some of BP, SA"),
        (["tiny", "--data_dir=there"], "data_dir: expected none"),
        (["tiny", "--only="], "--only: expected one or several"),
        (["tiny", "--devices="], "--devices: expected one or several"),
        (["tiny", "--devices=7"], "--devices: expected cpu, as there is no NVIDIA GPU"),
        (["tiny", "--devices=gpu"], "--devices: expected CUDA device ids, or cpu"),
        (["tiny", "--scale=1e-9"], "--scale: expected what leaves a run some length"),
        (["real", "--data_dir=/nowhere"], "a folder with mnist. Received: '/nowhere, no such"),
        *(
            (["theory", f"--{flag}"], f"--{flag.partition('=')[0]}: expected none, as theory has")
            for flag in ("seeds=2", "scale=2", "only=BP", "parallel=2", "devices=cpu")
        ),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_written(arguments, named, tmp_path, capfd):
    assert command.main(["reproduce", *arguments, f"--outdir={tmp_path}/out"]) == 2
    assert named in capfd.readouterr().err
    assert not pathlib.Path(tmp_path / "out").exists()


def test_list_and_help(capfd, monkeypatch):
    assert command.main(["reproduce", "--list"]) == 0
    assert "tiny" in capfd.readouterr().out
    monkeypatch.setenv("COLUMNS", "40")
    assert command.main(["reproduce", "--list"]) == 0
    listed = capfd.readouterr().out
    assert set(recipe.names()) <= set(listed.split("\n"))
    assert "…" not in listed
    assert command.main(["reproduce", "--help"]) == 0
    assert "--scale=X" in capfd.readouterr().out


def test_notes_of_the_figures_are_told(there, tmp_path, capfd):
    assert run(there, "--seeds=1", "--only=BP", "--nodraw") == 0
    shutil.copytree(there / "out", tmp_path / "out")
    table = tmp_path / "out/tiny/BP/seed-0/metrics.csv"
    head, *rows = table.read_text().splitlines()
    cells = rows[0].split(",")
    cells[2] = "nan"
    table.write_text("\n".join([head, ",".join(cells), *rows[1:]]) + "\n")
    capfd.readouterr()
    arguments = ["--seeds=1", "--only=BP", f"--outdir={tmp_path / 'out'}"]
    assert command.main(["reproduce", "tiny", *arguments]) == 0
    said = capfd.readouterr()
    assert "BP/seed-0 has numbers that are not finite from epoch 1 on" in said.err
    assert said.out.count("angles is not drawn: Expected") <= 1 and "angles: " not in said.out


@pytest.mark.parametrize("seed", [2, 7, 12])
def test_all_seeds_that_are_there_are_in_the_table(seed, there, tmp_path):
    assert run(there, "--only=BP", "--nodraw") == 0  # seeds 0 and 1, as the recipe has it
    shutil.copytree(there / "out/tiny/BP", tmp_path / "tiny/BP")
    more = tmp_path / f"tiny/BP/seed-{seed}"
    shutil.copytree(there / "out/tiny/BP/seed-1", more)
    flags = (more / "flags.cfg").read_text()
    (more / "flags.cfg").write_text(flags.replace("--seed=1\n", f"--seed={seed}\n"))
    (tmp_path / "tiny/BP/seed-x").mkdir()
    HereLauncher.started.clear()
    arguments = ["--seeds=1", "--only=BP", "--nodraw", f"--outdir={tmp_path}"]
    assert command.main(["reproduce", "tiny", *arguments]) == 0
    assert HereLauncher.started == []
    (row,) = [
        each
        for each in results.from_csv((tmp_path / "tiny/table.csv").read_text())
        if each.quantity == "accuracy, %"
    ]
    assert row.seeds == 3


def test_theory_and_what_is_there_need_no_tensorflow(there, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert command.main(["reproduce", "theory", f"--outdir={tmp_path}", "--nodraw"]) == 0
    for flag, said in (("--notrain", "Expected runs that are done"), ("", "Expected TensorFlow")):
        assert command.main(["reproduce", "tiny", f"--outdir={tmp_path}", *filter(None, [flag])])
        assert said in capfd.readouterr().err


@pytest.mark.parametrize(("delay", "epoch"), [(0, 2), (1, 3)])
@pytest.mark.parametrize("layer", [None, "last"])
def test_a_published_epoch_counts_from_the_end_of_the_delay(delay, epoch, layer, tmp_path):
    """The row of an epoch, and of one layer where it is named."""
    published = recipe.Published(
        title="angle", measure="weight_angle", epoch=2, values={"WM": (10.0,)}, layer=layer
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "flags.cfg").write_text("--dataset=digits\n" + f"--delay_epochs={delay}\n" * delay)
    rows = [
        f"{at},{10 * at},{name},{at}.{place},1.0,0.0"
        for at in (1, 2, 3)
        for place, name in enumerate(("first", "last"))
    ]
    head = "epoch,global_step,layer,weight_angle,norm_ratio,alignment_loss"
    (run / "layers.csv").write_text("\n".join([head, *rows]) + "\n")
    plan = recipe.Recipe(
        name="x", title="", source="", seeds=1, data=None, cost="", flags={}, sweep=None,
        series=(recipe.Series(label="WM", flags={}),), published=(published,), figures=(), note="",
    )  # fmt: skip
    job = jobs.Job(series="WM", value=None, seed=0, flags={}, workdir=run)
    (row,) = results.rows(plan, [job])
    wanted = (epoch + 0.0, epoch + 0.1) if layer is None else (epoch + 0.1,)
    assert row.ours == pytest.approx(wanted)
