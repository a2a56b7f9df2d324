"""Run directories as figures see them."""

import math
import re

import pytest

from neural_alignment.figures import layers
from neural_alignment.figures.material import Material
from neural_alignment.figures.reader import (
    RunReadError,
    grouped,
    has_checkpoints,
    labels,
    read,
    read_run,
)
from neural_alignment.figures.summary import summarise
from neural_alignment.reproduce import leaderboard, results
from neural_alignment.reproduce.recipe import Published
from tests.figures.made_runs import LAYERS, make_run, read_table, write_table


def test_a_run_is_read(tmp_path):
    run = read_run(make_run(tmp_path / "a", seed=3, steps=(0, 84, 126), learning_rate=0.02))
    assert (run.rule, run.seed, tuple(run.layers)) == ("symmetric", "3", LAYERS)
    assert [row["val_top1"] for row in run.metrics] == pytest.approx([0.3, 0.6, 0.9])
    assert run.layers["dense1"][-1]["weight_angle"] == pytest.approx(50.0)
    assert run.checkpoints() == {0.0: 0, 2.0: 84, 3.0: 126}
    # 0.02 is the flag's default, so that it tells no run from another.
    assert "learning_rate" not in run.flags and run.number("learning_rate", 7.0) == 7.0


def test_seeds_group_by_themselves(tmp_path):
    for rule in ("symmetric", "feedback"):
        for seed in (1, 0):
            make_run(tmp_path / f"{rule}-{seed}", rule=rule, seed=seed, data_dir=f"x{seed}")
    found = read([tmp_path])
    groups = grouped(found.runs)
    assert [group.label for group in groups] == ["feedback", "symmetric"]
    assert [[run.seed for run in group.runs] for group in groups] == [["0", "1"]] * 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ([{}, {"alignment": "feedback"}], ["backprop", "feedback"]),
        (
            [{"alignment": "product", "expansion": "10.0", "feedback": "gaussian", "l2": "1.0"},
             {"alignment": "product", "expansion": "1.0", "feedback": "orthogonal", "l2": "0.0"}],
            ["product, feedback=gaussian", "product, feedback=orthogonal"],
        ),
        (
            [{"model": "fc"}, {"model": "conv"}, {"alignment": "mirror", "model": "conv"}],
            ["backprop, fc", "backprop, conv", "mirror"],
        ),
        (
            [{"l2": a, "learning_rate": b} for a in "12" for b in "34"],
            [f"backprop, l2={a}, learning_rate={b}" for a in "12" for b in "34"],
        ),
        (
            [{"dataset": "mnist"}, {"alignment": "feedback"}, {"alignment": "mirror", "dataset":
             "mnist"}, {"alignment": "mirror", "dataset": "mnist", "l2": "1.0"}],
            ["backprop, mnist", "feedback, digits", "mirror, mnist, l2=none",
             "mirror, mnist, l2=1.0"],
        ),
        (
            [{"dataset": "image_folder", "data_dir": place, "alignment": rule}
             for place, rule in (("birds", "mirror"), ("flowers", "feedback"))],
            ["mirror, image_folder birds", "feedback, image_folder flowers"],
        ),
        (
            [{"dataset": "mnist", "model": "conv"}, {"dataset": "mnist"}, {"model": "conv"}],
            ["backprop, mnist, conv", "backprop, mnist, fc", "backprop, digits"],
        ),
        ([{"loss_rate": "0.5"}, {}], ["backprop, loss_rate=0.5", "backprop, loss_rate=1.0"]),
        (
            [{}, {"density": "0.5"}, {"l2": "2.0"}, {"l2": "3.0", "loss_rate": "0.5"},
             {"dtype": "bfloat16"}],
            ["backprop", "backprop, density=0.5", "backprop, l2=2.0", "backprop, l2=3.0",
             "backprop, dtype=bfloat16"],
        ),
    ],
)  # fmt: skip
def test_labels_are_the_shortest_that_tell_apart(settings, named):
    assert labels(settings) == named


def test_a_swept_flag_does_not_part_runs(tmp_path):
    runs = [read_run(make_run(tmp_path / str(d), density=d)) for d in (1.0, 0.5)]
    assert len(grouped(runs)) == 2
    (group,) = grouped(runs, without=["density"])
    assert group.label == "symmetric" and len(group.runs) == 2


def test_what_is_left_out_is_said(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b")
    make_run(tmp_path / "new", seed=1, epochs=0)
    make_run(tmp_path / "stopped", seed=3, train_epochs=4.5, max_epochs=3.0)
    make_run(tmp_path / "under_way", seed=2, train_epochs=4.5)
    found = read([tmp_path, tmp_path / "a"])
    assert [run.folder.name for run in found.runs] == ["a", "stopped", "under_way"]
    twice, empty, unfinished = found.notes
    assert "under_way is drawn as it is, after 3 of 4.5 epochs" in unfinished
    assert "b is left out: it has the settings and the seed of" in twice
    assert "new is left out: it has no whole epoch" in empty


# Rows of layers.csv that one of two seeds lost, a layer, and its mean angle after the last epoch
# over so many runs.
@pytest.mark.parametrize(
    ("lost", "layer", "mean", "runs"),
    [
        (lambda epoch, layer: False, "dense0", 70.0, 2),
        (lambda epoch, layer: epoch == "3", "dense0", 70.0, 1),
        (lambda epoch, layer: epoch == "3" and layer == "dense0", "dense0", 70.0, 1),
        (lambda epoch, layer: epoch == "3" and layer == "dense0", "dense1", 50.0, 2),
        (lambda epoch, layer: epoch == "2", "dense0", 70.0, 2),
    ],
)
def test_the_end_of_training_is_the_last_epoch_s(lost, layer, mean, runs, tmp_path):
    whole, part = make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)
    rows = read_table(part / "layers.csv")
    kept = [row for row in rows if not lost(row["epoch"], row["layer"])]
    write_table(part / "layers.csv", list(rows[0]), [list(row.values()) for row in kept])
    found = read([tmp_path])
    assert [f"{part} has no row of" in note for note in found.notes] == [True] * (
        any(lost("3", name) for name in LAYERS)
    )
    drawn = layers.draw_by_depth(Material(found.runs))
    (row,) = [row for row in drawn.table if row["layer"] == layer]
    assert (row["mean"], row["runs"]) == (pytest.approx(mean), runs)
    (board,), _ = leaderboard.rows([part])
    ends = [90.0 - 20.0 * (i + 1) for i, name in enumerate(LAYERS) if not lost("3", name)]
    angle = sum(ends) / len(ends) if ends else math.nan
    assert board.weight_angle == pytest.approx(angle, nan_ok=True)
    quantity = Published(title="", measure="weight_angle", epoch=None, values={})
    measured = results._measured(part, quantity, None)
    assert (measured is None) == (len(ends) < len(LAYERS))
    assert results._measured(whole, quantity, None) == pytest.approx((70.0, 50.0, 30.0))


# A run of which a file is lost, in a folder with whole ones: what is said of it.
PARTS = {
    "no flags": (("flags.cfg",), "is left out: it has no flags.cfg"),
    "no flags and no checkpoints": (("flags.cfg", "checkpoints"), "has no flags.cfg"),
    "no metrics": (("metrics.csv",), "has no whole epoch in metrics.csv"),
    "no metrics and no checkpoints": (("metrics.csv", "checkpoints"), "it has no metrics.csv"),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_run_that_lost_a_file_is_named(case, tmp_path):
    lost, said = PARTS[case]
    make_run(tmp_path / "whole")
    part = make_run(tmp_path / "below/part", seed=1)
    for name in lost:
        path = part / name
        path.rmdir() if path.is_dir() else path.unlink()
    found = read([tmp_path])
    assert [run.folder.name for run in found.runs] == ["whole"]
    assert len(found.notes) == 1 and said in found.notes[0] and str(part) in found.notes[0]
    if "whole epoch" not in said:
        with pytest.raises(RunReadError, match=f"which holds none .{part} is left out"):
            read([tmp_path / "below"])


def spoil(folder, name, text, encoding="utf-8"):
    (make_run(folder) / name).write_text(text, encoding=encoding)
    return folder


def test_files_saved_by_an_editor_of_windows_are_read(tmp_path):
    made = make_run(tmp_path / "run")
    before = read_run(made)
    for name in ("flags.cfg", "metrics.csv", "layers.csv"):
        text = (made / name).read_text().replace("\n", "\r\n")
        (made / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    after = read_run(made)
    assert (after.flags, after.metrics, after.layers) == (
        before.flags,
        before.metrics,
        before.layers,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none", "none, there is no such folder"),
        (lambda p: p, "which holds none"),
        (lambda p: spoil(p / "a", "metrics.csv", "epoch,loss\n1,2\n"), "no column global_step"),
        (lambda p: spoil(p / "a", "layers.csv", "epoch\n1\n"), "layers.csv. Received: no column"),
        (
            lambda p: spoil(p / "a", "metrics.csv", "epoch,global_step,val_top1,loss\n1,2,x,3\n"),
            "could not convert string to float: 'x'",
        ),
        (
            lambda p: spoil(p / "a", "metrics.csv", "epoch,global_step,val_top1,loss\n1,2\n2,4\n"),
            "metrics.csv. Received: line 2: 2 cells under 4 columns",
        ),
        (
            lambda p: spoil(p / "a", "metrics.csv", "epoch,global_step,val_top1,loss\nnan,2,1,1\n"),
            "line 2: nan as epoch",
        ),
        (
            lambda p: spoil(
                p / "a", "metrics.csv", "epoch,global_step,val_top1,loss\n1,2\n2,4,1,1\n"
            ),
            "line 2: 2 cells",
        ),
        (lambda p: spoil(p / "a", "flags.cfg", "--seed=1\n", "utf-16"), "no text in UTF-8"),
        (lambda p: spoil(p / "a", "metrics.csv", "epoch\n", "utf-16"), "metrics.csv. Received:"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, make, message):
    with pytest.raises(RunReadError, match="Expected") as raised:
        read([make(tmp_path)])
    assert message in str(raised.value)


def test_mean_and_spread():
    one = summarise([1.0, 2.0, 6.0, math.nan])
    assert (one.mean, one.count) == (3.0, 3)
    assert one.sd == pytest.approx(math.sqrt(7.0)) and one.sem == pytest.approx(one.sd / 3**0.5)
    alone, none = summarise([4.0]), summarise([])
    assert (alone.mean, alone.spread, alone.error) == (4.0, 0.0, 0.0) and math.isnan(alone.sd)
    assert math.isnan(none.mean) and none.count == 0


def test_an_option_of_a_later_version_does_not_part_seeds(tmp_path):
    make_run(tmp_path / "before", seed=0)
    make_run(tmp_path / "after", seed=1, forward_density=1.0)
    make_run(tmp_path / "other", seed=0, forward_density=0.5)
    first, other = grouped(read([tmp_path / n for n in ("before", "after", "other")]).runs)
    assert [run.folder.name for run in first.runs] == ["before", "after"]
    assert "forward_density=0.5" in other.label


# What two runs differ in besides their seed, and whether that makes two settings of them.
DIFFERENCES = {
    "devices": ({"strategy": "one_device"}, {"strategy": "mirrored", "logical_cpus": 2}, False),
    "GPUs": ({"gpu": "0"}, {"gpu": "1", "jit_compile": "true"}, False),
    "where the data lie": ({"data_dir": "/a"}, {"data_dir": "/b", "download": "true"}, False),
    "where a module lies": ({"import": "/a/mine.py"}, {"import": "/b/mine.py"}, False),
    "what is kept": ({"keep_epochs": "0,2"}, {"checkpoint_max": 2}, False),
    "images of one's own": (
        {"dataset": "image_folder", "data_dir": "/a/birds"},
        {"dataset": "image_folder", "data_dir": "/a/flowers"}, True),
    "the same images elsewhere": (
        {"dataset": "image_folder", "data_dir": "birds/"},
        {"dataset": "image_folder", "data_dir": "/b/birds"}, False),
    "spelling": (
        {"train_epochs": "3", "drops": "1,2", "l2": "1e-3", "weight_decay_schedule": "0:.1,1:1"},
        {"train_epochs": "3.0", "drops": "1.0,2.0", "l2": "0.001",
         "weight_decay_schedule": "0:0.1,1.0:1.0"}, False),
    "a default in another spelling": ({"noisy_opt_variance": "1"}, {}, False),
    "layers": ({"layers_list": "64,64"}, {"layers_list": "6464"}, True),
    "no hidden layers": ({"layers_list": ""}, {}, True),
    "no drops of R's rate": ({"alignment_drops": ""}, {}, True),
    "precision": ({}, {"dtype": "bfloat16"}, True),
    "length": ({"max_epochs": 3.0}, {}, True),
    "a rate": ({"learning_rate": 0.1}, {"learning_rate": 0.2}, True),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENCES)
def test_what_parts_seeds(case, tmp_path):
    one, other, parts = DIFFERENCES[case]
    make_run(tmp_path / "0", seed=0, **one)
    make_run(tmp_path / "1", seed=1, **other)
    assert len(grouped(read([tmp_path]).runs)) == 1 + parts


@pytest.mark.parametrize(
    ("called", "said"),
    [
        ({}, None),
        ({"0": "A", "1": "A"}, None),
        ({"0": "A", "1": "B"}, "A, B: not used, as .*/0, .*/1 differ by their seed alone"),
        ({"0": "A"}, "A: not used, as .*/0, .*/1 differ by their seed alone .* as symmetric$"),
    ],
)
def test_labels_that_are_not_used_are_named(called, said, tmp_path):
    folders = [make_run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    found = read(folders, {tmp_path / name: label for name, label in called.items()})
    assert [re.search(said or "$^", note) is not None for note in found.notes] == [True] * (
        said is not None
    )


def test_links_to_runs_are_followed(tmp_path):
    make_run(tmp_path / "far/a", steps=(42,))
    make_run(tmp_path / "here/b", seed=1)
    (tmp_path / "here/a").symlink_to(tmp_path / "far/a")
    (tmp_path / "here/round").symlink_to(tmp_path / "here")
    assert [run.folder.name for run in read([tmp_path / "here"]).runs] == ["a", "b"]
    assert has_checkpoints(tmp_path / "here") and not has_checkpoints(tmp_path / "here/b")


def lines(folder, change):
    """A run whose metrics.csv is changed: its rows without the head."""
    path = make_run(folder) / "metrics.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *change(rows)]) + "\n")
    return folder


# metrics.csv or layers.csv as files get: what is done to the lines, and what is noted.
TABLES = {
    "whole": ("metrics.csv", lambda lines: [*lines, ""], None),
    "no newline at its end": ("metrics.csv", lambda lines: lines, None),
    "cut in a row": ("metrics.csv", lambda lines: [*lines, "4,168,0.2"], "within a row"),
    "cut in a number": ("metrics.csv", lambda lines: [*lines, "4,1,1,1,1,1,-"], "within a row"),
    "cut in a name": ("layers.csv", lambda lines: [*lines, "4,168,den"], "within a row"),
    "an epoch twice": (
        "metrics.csv",
        lambda lines: [*lines[:3], "3,126,9,9,9,0.1,0.1", lines[3], ""], "more than once",
    ),
    "layers twice": ("layers.csv", lambda lines: [*lines, *lines[-3:], ""], "more than once"),
    "in another order": ("metrics.csv", lambda lines: [lines[0], *lines[:0:-1], ""], None),
    "lines between": ("metrics.csv", lambda lines: "\n\n".join(lines).split("\n"), None),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_tables_as_they_get(case, tmp_path):
    name, change, note = TABLES[case]
    before = read([make_run(tmp_path / "before")]).runs[0]
    path = make_run(tmp_path / "run") / name
    path.write_text("\n".join(change(path.read_text().splitlines())))
    found = read([tmp_path / "run"])
    (run,) = found.runs
    assert (run.metrics, run.layers) == (before.metrics, before.layers)
    assert [f"{path} " in each and note in each for each in found.notes] == [True] * (
        note is not None
    )


def test_an_empty_table_is_no_error(tmp_path):
    make_run(tmp_path / "a")
    (make_run(tmp_path / "b", seed=1) / "metrics.csv").write_text("")
    found = read([tmp_path])
    assert [run.folder.name for run in found.runs] == ["a"]
    assert "b/metrics.csv is empty" in found.notes[0] and "left out" in found.notes[1]


# A killed or diverged run: its rows, and what is noted of it.
ENDS = {
    "before its first epoch": (lambda rows: ["0,0,nan,nan,2.3,0.1,0.5"], "no whole epoch"),
    "in the second epoch": (lambda rows: rows[:1], "drawn as it is, after 1 of 3 epochs"),
    "with a loss that is none": (lambda rows: [*rows[:2], "3,126,nan,nan,nan,0.1,0.5"],
                                 "not finite from epoch 3 on"),
    "with an infinite loss": (lambda rows: [rows[0], "2,84,inf,0,0,0.1,0.5", rows[2]],
                              "not finite from epoch 2 on"),
    "with no loss on validation": (lambda rows: [*rows[:2], "3,126,0.3,0.5,inf,0.9,1.0"],
                                   "not finite from epoch 3 on as val_loss: they"),
    "with losses alone that are none": (lambda rows: [*rows[:2], "3,126,nan,nan,nan,0.1,0.5"],
                                        "from epoch 3 on as loss, val_loss: they"),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_how_a_run_ended_is_said(case, tmp_path):
    change, note = ENDS[case]
    (told,) = read([lines(tmp_path / "a", change)]).notes
    assert str(tmp_path / "a") in told and note in told
    # What was measured before the first epoch has no training loss.
    found = read([lines(tmp_path / "b", lambda rows: ["0,0,nan,nan,2.3,0.1,0.5", *rows])])
    assert not found.notes


@pytest.mark.parametrize(("flag", "value"), [("seed", "x"), ("train_epochs", "many")])
def test_a_number_that_is_none_is_named(flag, value, tmp_path):
    run = make_run(tmp_path / "a", **{flag: value})
    with pytest.raises(RunReadError, match=rf"--{flag} in {run}/flags.cfg. Received: '{value}'"):
        grouped(read([run]).runs)
