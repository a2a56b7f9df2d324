"""The page about runs: self-contained; settings, outcome, times; what it refuses."""

import html.parser
import re

import pytest

from neural_alignment import report
from neural_alignment.cli import leaderboard, main
from neural_alignment.figures.reader import RunReadError, read
from neural_alignment.report.runs import defaults, shown
from tests.figures.made_runs import make_run, write_table
from tests.search.test_report import small_search

TIMES = ("epoch", "global_step", "steps", "train_seconds", "other_seconds")


class Page(html.parser.HTMLParser):
    """Cells by table row, images, headings, and whatever names another file."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.images, self.headings, self.addresses, self._in = [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "wbr":
            return
        attrs = dict(attrs)
        self._in = tag
        self.addresses += [attrs[name] for name in ("src", "href", "srcset") if name in attrs]
        if tag == "img":
            self.images.append(attrs["alt"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in in ("td", "th"):
            self.rows[-1][-1] += data
        if self._in == "h2":
            self.headings.append(data)

    def row(self, head):
        [found] = [row[1:] for row in self.rows if row[0] == head]
        return found


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "a", learning_rate=0.05, decay_coef=0.001, self_coef=0.7, top1=0.9)
    make_run(folder / "b<i>", rule="backprop", learning_rate=0.03, top1=0.95)
    write_table(folder / "a" / "times.csv", TIMES, [(1, 42, 42, 2.0, 0.5), (2, 84, 42, 1.0, 0.25)])
    return folder


@pytest.fixture(scope="module")
def page(two, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert report.write([two / "a", two / "b<i>"], path) == []
    return path.read_text()


def test_it_needs_no_other_file(page):
    found = Page(page)
    assert found.addresses and all(
        each.startswith("data:image/svg+xml;") for each in found.addresses
    )
    assert not re.search(r"<script|<link|@import|url\(", page)


def test_outcome_and_times(page):
    found = Page(page)
    assert found.row("top-1, last epoch") == ["90.00 %", "95.00 %"]
    assert found.row("epochs (steps)") == ["3 (126)", "3 (126)"]
    assert found.row("time of the steps") == ["0 min 3.0 s", "-"]
    assert found.row("data set, model, rule") == ["digits, fc, symmetric", "digits, fc, backprop"]


def test_settings_that_differ_from_the_defaults(page):
    found = Page(page)
    assert found.row("learning_rate")[1:] == ["0.05", "0.03"]
    assert found.row("self_coef")[1:] == ["0.7", "-"]  # backpropagation has none
    heads = [row[0] for row in found.rows]
    assert "density" not in heads  # at the rule's default
    assert "workdir" not in heads and "defaults" not in heads


def test_charts_and_layers(page):
    found = Page(page)
    assert {"top-1 (%)", "training loss", "validation loss"} <= set(found.images)
    assert "Angle of W and B (degrees)" in found.headings and "|B| / |W|" in found.headings
    assert found.row("dense_output") == ["30", "0.7", "30", "0.7"]


def test_names_are_text(page):
    assert "b<i>" not in page and "b&lt;i&gt;" in page


def test_a_value_that_was_filled_in_is_marked(tmp_path):
    make_run(tmp_path / "run", learning_rate=0.05)
    flags = tmp_path / "run" / "flags.cfg"
    flags.write_text(flags.read_text().replace("--defaults=none", "--defaults=learning_rate"))
    report.write([tmp_path / "run"], tmp_path / "page.html")
    assert Page((tmp_path / "page.html").read_text()).row("learning_rate")[1:] == ["0.05 *"]


def test_names_are_as_short_as_tells_apart(tmp_path):
    for folder in ("x/run", "y/run"):
        make_run(tmp_path / folder, seed=len(folder) + ord(folder[0]))
    runs = shown(read([tmp_path]).runs)
    assert [each.name for each in runs] == ["x/run", "y/run"]
    assert "seed" in defaults(runs)


def test_what_cannot_be_shown_is_refused_or_noted(tmp_path, capsys):
    with pytest.raises(RunReadError, match="whole epoch"):
        make_run(tmp_path / "begun", epochs=0)
        report.write([tmp_path / "begun"], tmp_path / "page.html")
    make_run(tmp_path / "run")
    called = ["neural-alignment", "report"]
    output = tmp_path / "page.html"
    assert main.main([*called, str(tmp_path), f"--output={output}"]) == 0
    assert "begun is left out" in capsys.readouterr().err and output.exists()
    cases = {
        (): (2, "expected run directories"),
        (str(tmp_path / "nowhere"),): (1, "there is no such folder"),
        (str(tmp_path), f"--output={tmp_path / 'none' / 'x.html'}"): (1, "none"),
        (str(tmp_path), "--output="): (2, "--output"),
    }
    for arguments, (code, words) in cases.items():
        assert main.main([*called, *arguments]) == code
        text = capsys.readouterr().err
        assert text.startswith("error: ") and words in text and "Traceback" not in text
    (tmp_path / "run" / "layers.csv").write_text("epoch,layer\n1,x\n")
    assert main.main([*called, str(tmp_path / "run")]) == 1
    assert "layers.csv" in capsys.readouterr().err


# Runs as they may lie about: what is changed of one, and what the page or the notes say of it.
ODD = {
    "under way": ({"epochs": 1, "train_epochs": 10.0}, "1 of 10 (42)", "after 1 of 10 epochs"),
    "diverged": ({"metrics.csv": "1,42,nan,nan,nan,0.1,0.5\n"}, "10.00 %", "not finite from epoch"),
    "no layers": ({"layers.csv": None}, "90.00 %", ""),
    "times of zero": ({"times.csv": "1,42,42,0.0,0.0\n"}, "0 min 0.0 s", ""),
    "a table of few columns": ({"metrics.csv": None}, "90.00 %", "within a row"),
    "times that are none": ({"times.csv": "1,42,42,nan,0.0\n"}, "90.00 %", ""),
}


@pytest.mark.parametrize("case", ODD)
def test_runs_of_every_kind_have_a_page(case, tmp_path):
    changes, cell, note = ODD[case]
    flags = {key: value for key, value in changes.items() if "." not in key}
    run = make_run(tmp_path / "x$a$ <b>&'\"_", **flags)
    for name, rows in ((n, r) for n, r in changes.items() if "." in n):
        path = run / name
        head = ",".join(TIMES) if name == "times.csv" else path.read_text().split("\n")[0]
        if name == "metrics.csv" and rows is None:
            head, rows = "epoch,global_step,val_top1,loss", "3,126,0.9,0.1\n4,168"
        path.unlink(missing_ok=True) if rows is None else path.write_text(f"{head}\n{rows}")
    out = tmp_path / "page.html"
    notes = report.write([run, make_run(tmp_path / "other", seed=1)], out)
    page = Page(out.read_text())
    assert run.name in page.rows[0] and any(cell in row for row in page.rows)
    assert any(note in each for each in notes) if note else notes == []
    assert all(address.startswith("data:") for address in page.addresses)


def test_angles_of_an_earlier_epoch_are_not_those_of_the_end(tmp_path):
    run = make_run(tmp_path / "run")
    head = (run / "layers.csv").read_text().split("\n")[0]
    rows = "2,84,dense0,33.25,0.75,0.1\n2,84,dense1,44.25,0.25,0.1\n3,126,dense1,22.25,0.35,0.1\n"
    (run / "layers.csv").write_text(f"{head}\n{rows}")
    out = tmp_path / "page.html"
    (note,) = report.write([run], out)
    assert "has no row of dense0 after 3 epochs" in note
    cells = [cell for row in Page(out.read_text()).rows for cell in row]
    assert any("22.2" in cell for cell in cells)
    assert not any("33.2" in cell or "44.2" in cell for cell in cells)


def test_many_runs_and_a_search(tmp_path, recwarn):
    for i in range(24):
        make_run(tmp_path / f"run-{i:02}", seed=i, epochs=1, layers=())
    small_search(tmp_path / "search")
    (note,) = report.write([tmp_path], tmp_path / "page.html")
    assert "search is left out: it is a search" in note and not recwarn.list
    with pytest.raises(RunReadError, match="Received: searches alone, .*search"):
        report.write([tmp_path / "search"], tmp_path / "page.html")
    assert leaderboard.main(["leaderboard", str(tmp_path / "search")]) == 1
