"""Figures of runs: what is drawn is what the runs have, and what is missing is named."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

from neural_alignment.cli import figures as command
from neural_alignment.figures import draw, style
from neural_alignment.figures.drawing import write
from neural_alignment.figures.layers import draw_angles
from neural_alignment.figures.material import Material, NotDrawn
from neural_alignment.figures.reader import grouped, read
from neural_alignment.figures.registry import KINDS, NOTHING, RUNS
from neural_alignment.search.report import option_scores
from tests.figures.made_runs import LAYERS, make_run, read_table
from tests.search.test_report import small_search

CLEAN = {"alignment_optimizer": "adam"}
NOISY = {"use_noisy_alignment_opt": "true", **CLEAN}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of a rule at three variances and densities, backprop, and another network."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, more in ((0, 0.0), (1, 0.02)):
        make_run(folder / f"sa{seed}", seed=seed, top1=0.9 + more, path_metrics=True, **CLEAN)
        for variance in (0.01, 0.1):
            name = f"noisy{seed}-{variance}"
            make_run(folder / name, seed=seed, top1=0.8 + more, noisy_opt_variance=variance,
                     **NOISY)  # fmt: skip
        for density in (0.5, 0.1):
            name = f"sparse{seed}-{density}"
            make_run(folder / name, seed=seed, density=density, top1=density, **CLEAN)
        make_run(folder / f"bp{seed}", rule="backprop", seed=seed, top1=0.97, layers=())
    layers = tuple(f"conv{i}" for i in range(20))
    make_run(folder / "deep", model="resnet20", layers=layers, **CLEAN)
    return folder


@pytest.fixture(scope="module")
def all_of(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    return out, draw([runs], out, formats=["png"])


def test_all_that_the_runs_have_is_drawn(all_of):
    out, written = all_of
    made = {path.stem for path in written.files}
    of_runs = {name for name, kind in KINDS.items() if kind.of == RUNS}
    assert made == of_runs - {"scatter"}
    assert {path.name for path in out.glob("curves.*")} == {"curves.csv", "curves.png"}
    assert all(path.stat().st_size > 100 for path in written.files)
    assert "--keep_epochs" in written.not_drawn["scatter"]
    assert any("--path_metrics" in note and "deep" in note for note in written.notes)


def test_the_table_has_mean_and_sd_over_seeds(all_of):
    rows = read_table(all_of[0] / "curves.csv")
    last = [r for r in rows if r["measure"] == "val_top1" and r["epoch"] == "3.0"]
    bp = next(r for r in last if r["group"] == "backprop")
    assert float(bp["mean"]) == pytest.approx(97.0) and bp["runs"] == "2"
    one = next(r for r in last if r["mean"].startswith("91.0"))
    assert float(one["sd"]) == pytest.approx(2.0**0.5)


def test_layers_are_in_the_order_of_depth(runs):
    material = Material(read([runs / "sa0", runs / "sa1"]).runs)
    with style.context():
        drawn = draw_angles(material)
    (panel,) = drawn.figure.axes
    ends = [line.get_ydata()[-1] for line in panel.get_lines()]
    assert ends == pytest.approx([70.0, 50.0, 30.0])
    shades = [sum(style.matplotlib.colors.to_rgb(x.get_color())) for x in panel.get_lines()]
    assert shades == sorted(shades) and len(panel.collections) == 3
    assert [t.get_text() for t in drawn.figure.legends[0].get_texts()] == list(LAYERS)


def test_a_group_looks_the_same_in_every_figure(runs):
    looks = {}
    for name in ("curves", "depth"):
        material = Material(read([runs / "bp0", runs / "sa0", runs / "sparse0-0.5"]).runs)
        with style.context():
            panel = KINDS[name].draw(material).figure.axes[0]
        handles, names = panel.get_legend_handles_labels()
        lines = [getattr(handle, "lines", [handle])[0] for handle in handles]
        found = {n: (x.get_color(), x.get_marker()) for n, x in zip(names, lines, strict=True)}
        looks[name] = found
    assert len(looks["curves"]) == 3 and len(looks["depth"]) == 2
    assert looks["depth"].items() <= looks["curves"].items()


def test_many_layers_get_a_colour_bar(runs):
    with style.context():
        drawn = draw_angles(Material(read([runs / "deep"]).runs))
    panel, bar = drawn.figure.axes
    assert len(panel.get_lines()) == 20 and not drawn.figure.legends
    assert [t.get_text() for t in bar.get_yticklabels()][::8] == ["conv0", "conv19"]


def test_the_noise_sweep_has_standard_errors(all_of):
    rows = read_table(all_of[0] / "noise.csv")
    assert [row["variance"] for row in rows] == ["0.0", "0.01", "0.1", ""]
    assert rows[-1]["group"] == "backprop" and float(rows[-1]["mean"]) == pytest.approx(97.0)
    noisy = rows[1]
    assert float(noisy["mean"]) == pytest.approx(81.0)
    assert float(noisy["sem"]) == pytest.approx(1.0)


def test_the_sparsity_sweep_has_backprop_as_a_line(all_of):
    rows = read_table(all_of[0] / "sparsity.csv")
    by_share = {r["sparsity"]: float(r["mean"]) for r in rows if "symmetric" in r["group"]}
    assert by_share == pytest.approx({"0.0": 91.0, "50.0": 50.0, "90.0": 10.0})
    assert [float(r["mean"]) for r in rows if r["group"] == "backprop"] == [97.0]


@pytest.mark.parametrize(
    ("figure", "remedy"),
    [
        ("error_angles", "--path_metrics"),
        ("scatter", "--keep_epochs"),
        ("noise", "--noisy_opt_variance"),
        ("sparsity", "--density"),
        ("architectures", "--model"),
        ("importance", "--searchdir"),
    ],
)
def test_what_a_run_lacks_is_told_with_the_flag_that_keeps_it(tmp_path, capsys, figure, remedy):
    run = make_run(tmp_path / "run")
    out = tmp_path / "out"
    assert command.main(["figures", str(run), f"--figure={figure}", f"--outdir={out}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {figure}: Expected") and remedy in said
    assert not out.exists()


@pytest.mark.parametrize("figure", [name for name, kind in KINDS.items() if kind.of == RUNS])
def test_there_are_no_runs(tmp_path, figure):
    empty = make_run(tmp_path / "run", epochs=0)
    with pytest.raises(NotDrawn, match=f"{figure}: Expected run directories with a whole epoch"):
        draw([empty], tmp_path / "out", [figure])


def test_a_run_whose_every_number_is_nan(tmp_path):
    run = make_run(tmp_path / "run", path_metrics=True, top1=float("nan"))
    for name, keys in (("metrics.csv", 2), ("layers.csv", 3)):
        head, *rows = (run / name).read_text().splitlines()
        cells = [row.split(",") for row in rows]
        rows = [",".join(row[:keys] + ["nan"] * (len(row) - keys)) for row in cells]
        (run / name).write_text("\n".join([head, *rows]) + "\n")
    written = draw([run], tmp_path / "out", formats=["svg"])
    assert written.files == []
    assert {"curves", "angles", "error_angles", "depth"} <= set(written.not_drawn)


def test_angles_of_a_rule_without_a_kernel(tmp_path):
    run = make_run(tmp_path / "run", rule="backprop", layers=())
    with pytest.raises(NotDrawn, match=r"angles: .*run without\. backprop, direct and frozen"):
        draw([run], tmp_path / "out", ["angles"])


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    for out in "ab":
        written = draw([runs / "sa0"], tmp_path / out, ["norm_ratios"])
        assert [path.suffix for path in written.files] == [".png", ".pdf", ".csv"]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_the_command(runs, tmp_path, capsys):
    arguments = [str(runs / "sa0"), "--figure=curves,depth", f"--outdir={tmp_path}", "--format=png"]
    assert command.main(["figures", *arguments]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "curves.csv", "curves.png", "depth.csv", "depth.png"
    }  # fmt: skip
    assert "curves.png" in capsys.readouterr().out


def test_runs_are_called_as_the_user_calls_them(runs, tmp_path):
    given = [f"weight estimation={runs / 'sa0'}", f"weight estimation={runs / 'sa1'}"]
    given += [f"BP={runs / 'bp0'}", str(runs / "deep")]
    options = ["--figure=curves", "--format=svg", f"--outdir={tmp_path / 'out=1'}"]
    assert command.main(["figures", *given, *options]) == 0
    rows = read_table(tmp_path / "out=1" / "curves.csv")
    counts = {row["group"]: row["runs"] for row in rows}
    assert counts == {"weight estimation": "2", "BP": "1", "symmetric, resnet20": "1"}
    (tmp_path / "a=b").symlink_to(runs / "sa0")  # a folder of that name is no label
    written = draw([tmp_path / "a=b"], tmp_path / "out", ["curves"], ["svg"])
    assert {row["group"] for row in read_table(written.files[-1])} == {"symmetric"}


def test_one_label_for_several_settings_says_too_little(runs):
    folders = [runs / "sa0", runs / "sparse0-0.5", runs / "sparse1-0.5"]
    found = read(folders, dict.fromkeys(folders, "sa"))
    assert [g.label for g in grouped(found.runs)] == [
        "symmetric, density=1.0", "symmetric, density=0.5"
    ]  # fmt: skip
    (swept,) = grouped(found.runs, without=["density"])
    assert swept.label == "sa"


def test_the_list(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert command.main(["figures", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in KINDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected run directories"),
        (["--figure=angels"], "expected one of curves"),
        (["--format=gif", "RUN"], "expected one of png, pdf, svg"),
        (["--epochs=-1", "RUN"], "expected finite numbers >= 0"),
        (["--no_such_flag", "RUN"], "Unknown command line flag"),
        ([""], "RUN: expected a path"),
        (["RUN", "--figure=curves", "--epochs=2"], "--epochs: expected with --figure=scatter"),
        (["RUN", "--components=3"], "--components: expected with --figure=predictivity"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    assert command.main(["figures", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_told_first(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").write_text("mine")
    monkeypatch.setattr("neural_alignment.figures.drawing._drawn", None)  # nothing is drawn
    for place in ("out", "out/within"):
        assert command.main(["figures", str(runs), f"--outdir={tmp_path / place}"]) == 1
        said = capsys.readouterr().err
        assert f"{tmp_path / place}: " in said and "file: give a folder" in said
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert command.main(["figures", str(tmp_path)]) == 1
    assert "Expected a run directory" in capsys.readouterr().err


def test_without_tensorflow_there_are_the_other_figures(monkeypatch, tmp_path, capsys):
    run = make_run(tmp_path / "run", steps=(42,))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    out = [f"--outdir={tmp_path / 'out'}", "--format=svg"]
    assert command.main(["figures", str(run), *out]) == 0
    said = capsys.readouterr().err
    assert "scatter is not drawn: Expected TensorFlow" in said and "pip install" in said
    assert (tmp_path / "out" / "angles.svg").is_file()
    assert command.main(["figures", str(run), "--figure=scatter", *out]) == 1


def test_matplotlib_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    run = make_run(tmp_path / "run")
    assert command.main(["figures", str(run), f"--outdir={tmp_path / 'out'}"]) == 1
    assert 'pip install "neural-alignment[figures]"' in capsys.readouterr().err


def test_the_importance_of_every_choice_of_a_search(tmp_path):
    store, plan = small_search(tmp_path / "search")
    assert {one.name: one.trials for one in option_scores(plan, store.records)} == {
        "switch": 4, "other": 4
    }  # fmt: skip
    written = draw([tmp_path / "search"], tmp_path, formats=["svg"])
    assert [path.name for path in written.files] == ["importance.svg", "importance.csv"]
    rows = read_table(tmp_path / "importance.csv")
    assert [(r["choice"], r["option"], r["trials"]) for r in rows] == [
        ("switch", "False", "2"), ("switch", "True", "2"),
        ("other", "False", "2"), ("other", "True", "2"),
    ]  # fmt: skip
    assert [float(r["mean"]) for r in rows] == pytest.approx([0.25, 0.55, 0.4, 0.4])
    assert float(rows[1]["sem"]) == pytest.approx(0.05)


def test_no_figure_of_tables_imports_tensorflow(runs, tmp_path):
    code = (
        "import sys\nfrom neural_alignment.figures import draw\n"
        f"draw([{str(runs / 'sa0')!r}], {str(tmp_path)!r}, formats=['svg'])\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "[]\n", ended.stderr
    assert (tmp_path / "curves.svg").is_file() and (tmp_path / "depth.svg").is_file()


def test_every_kind_says_what_it_needs():
    for name, kind in KINDS.items():
        assert kind.about and kind.source and (kind.needs or kind.of == NOTHING), name


# Names that Matplotlib would read as something else: a formula, "not in the legend".
NAMES = ("_mine", "a$x^b$", "$", "__", r"\$", "<b>&", "Ångström", "{x}", "%s", "日本")


def test_names_of_any_kind(tmp_path, caplog):
    runs = {make_run(tmp_path / str(i), seed=7, layers=NAMES, density=0.1 + i / 100): name
            for i, name in enumerate(NAMES)}  # fmt: skip
    found = read(runs, runs).runs
    with style.context(), warnings.catch_warnings():
        warnings.simplefilter("error")
        curves, angles = KINDS["curves"].draw(Material(found)), draw_angles(Material(found[:1]))
        for drawn in (curves, angles):
            write(drawn, tmp_path / "figure", ["png"])
    assert "figure.png: Matplotlib's font lacks letters" in caplog.text
    assert {row["group"] for row in curves.table} == set(NAMES)
    for drawn in (curves, angles):
        (legend,) = drawn.figure.legends
        shown = [text.get_text().strip() for text in legend.get_texts()]
        assert shown == [style.plain(name) for name in NAMES]


def test_seeds_whose_layers_are_called_otherwise(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", seed=1, layers=("net/0", "net/1", "net/2"))
    written = draw([tmp_path], tmp_path / "out", ["angles", "depth"], ["svg"])
    (note,) = written.notes
    assert note.startswith(f"angles, depth: {tmp_path}/b is left out: its layers net/0, net/1")
    assert {row["layer"] for row in read_table(tmp_path / "out/angles.csv")} == set(LAYERS)


def test_a_band_lies_in_the_panel(tmp_path):
    make_run(tmp_path / "a", path_metrics=True)
    other = make_run(tmp_path / "b", seed=1, path_metrics=True)
    text = (other / "layers.csv").read_text().replace(",70.0", ",110.0")
    (other / "layers.csv").write_text(text)
    with style.context():
        drawn = KINDS["error_angles"].draw(Material(read([tmp_path]).runs))
    first = drawn.table[0]
    assert (first["mean"], first["sd"]) == pytest.approx((90.0, np.std([70, 110], ddof=1)))
    assert drawn.figure.axes[0].get_ylim()[1] > first["mean"] + first["sd"]


def test_a_table_without_a_measure(tmp_path):
    run = make_run(tmp_path / "run")
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    text = "".join(",".join(row[:4] + row[5:]) + "\n" for row in rows)  # without val_loss
    (run / "metrics.csv").write_text(text)
    draw([run], tmp_path / "out", ["curves"], ["svg"])
    assert {r["measure"] for r in read_table(tmp_path / "out/curves.csv")} == {"val_top1", "loss"}


@pytest.mark.parametrize("flag", ["figure", "format", "layers", "epochs"])
def test_an_empty_list_is_not_all(flag, runs, tmp_path, capsys):
    out = f"--outdir={tmp_path / 'out'}"
    assert command.main(["figures", str(runs / "sa0"), f"--{flag}=", out]) == 2
    assert f"--{flag}: expected one or several" in capsys.readouterr().err


def test_long_names_are_whole(tmp_path):
    long = [
        f"a weight mirror with a rate of {rate} and a decay of 0.001 at the end" for rate in "12"
    ]
    runs = {make_run(tmp_path / name, density=0.1 + i / 10): name for i, name in enumerate(long)}
    with style.context():
        figure = draw_angles(Material(read(runs, runs).runs)).figure
        depth = KINDS["depth"].draw(Material(read(runs, runs).runs)).figure
    titles = [panel.get_title().replace("\n", " ") for panel in figure.axes]
    shown = [text.get_text().replace("\n", " ") for text in depth.legends[0].get_texts()]
    assert titles == shown == long
    assert max(len(line) for panel in figure.axes for line in panel.get_title().split("\n")) <= 36


@pytest.mark.parametrize("delay", [0, 1])
def test_accuracies_by_chance_of_a_delay_do_not_flatten_the_rest(delay, tmp_path):
    run = make_run(tmp_path / "wm", rule="mirror", delay_epochs=delay, top1=0.98, **CLEAN)
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    top1 = rows[0].index("val_top1")
    for row, value in zip(rows[1:], (0.1, 0.95, 0.97), strict=False):
        row[top1] = str(value)
    (run / "metrics.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    material = Material(read([run]).runs)
    with style.context():
        drawn = KINDS["curves"].draw(material)
    lowest = drawn.figure.axes[0].get_ylim()[0]
    told = [note for note in material.notes if "lie below the axis" in note]
    assert (lowest > 80.0, len(told)) == ((True, 1) if delay else (False, 0))
    assert min(row["mean"] for row in drawn.table if row["measure"] == "val_top1") == 10.0
