"""The page: HTML that needs no other file and no network."""

from __future__ import annotations

import html
import importlib.resources
import math
import pathlib
import string
from collections.abc import Iterable, Sequence

import neural_alignment
from neural_alignment import atomic
from neural_alignment.figures.reader import read
from neural_alignment.figures.tables import RunReadError
from neural_alignment.report import charts
from neural_alignment.report.runs import Shown, defaults, shown


def write(folders: Iterable[str | pathlib.Path], path: str | pathlib.Path) -> list[str]:
    """Writes one page about runs, side by side.

    Args:
        folders: run directories, or folders that hold some.
        path: of the HTML file.

    Returns:
        What was left out, and why: a run without a whole epoch, say.

    Raises:
        RunReadError: a folder that holds no run, or a table that cannot be read.
        OSError: the file cannot be written.
    """
    folders = list(folders)
    found = read(folders)
    if not found.runs:
        raise RunReadError(
            "Expected runs with a whole epoch behind them. Received: "
            f"{'; '.join(found.notes) or 'searches alone, ' + ', '.join(map(str, folders))}"
        )
    atomic.write_text(path, text(shown(found.runs)))
    searches = (
        f"{folder} is left out: it is a search, for neural-alignment search report"
        for folder in found.searches
    )
    return [*found.notes, *searches]


def text(runs: Sequence[Shown]) -> str:
    """The page about runs.

    Args:
        runs: at least one.

    Returns:
        HTML.
    """
    template = importlib.resources.files("neural_alignment.report").joinpath("page.html")
    parts = [
        _section("Outcome", _outcome(runs)),
        _section("Settings that differ from the defaults", _settings(runs)),
        _section("Curves", _grid(charts.curves(runs).items())),
        *(_section(title, _grid(images)) for title, images in charts.layers(runs).items()),
        _section("Layers after the last epoch", _layers(runs)),
    ]
    return string.Template(template.read_text(encoding="utf-8")).substitute(
        title=html.escape(", ".join(each.name for each in runs)),
        body="\n".join(part for part in parts if part),
        version=neural_alignment.__version__,
    )


def _outcome(runs: Sequence[Shown]) -> str:
    rows = [
        ("data set, model, rule", [_what(each) for each in runs]),
        ("epochs (steps)", [_length(each) for each in runs]),
        ("top-1, last epoch", [_percent(each.last["val_top1"]) for each in runs]),
        ("top-1, best epoch", [_best(each) for each in runs]),
        ("top-5", [_percent(each.last.get("val_top5", math.nan)) for each in runs]),
        ("validation loss", [_number(each.last.get("val_loss", math.nan)) for each in runs]),
        ("training loss", [_number(each.last["loss"]) for each in runs]),
        ("alignment loss R", [_number(each.last.get("alignment_loss", math.nan)) for each in runs]),
        ("time of the steps", [_time(each, "train_seconds") for each in runs]),
        ("time of validation and measures", [_time(each, "other_seconds") for each in runs]),
        ("images a second", [_rate(each) for each in runs]),
    ]
    return _table(["", *(each.name for each in runs)], [(head, *cells) for head, cells in rows])


def _settings(runs: Sequence[Shown]) -> str:
    rows = []
    for name, default in defaults(runs).items():
        cells = []
        for each in runs:
            text = each.settings.get(name, "default" if each.takes(name) else "-")
            value = text or "none"  # as of --layers_list=
            cells.append(f"{value} *" if name in each.filled & each.settings.keys() else value)
        rows.append((name, default, *cells))
    if not rows:
        return "<p>None.</p>"
    marked = any(each.filled & each.settings.keys() for each in runs)
    note = "<p>* filled in by data set, model and rule.</p>" if marked else ""
    return _table(["flag", "default", *(each.name for each in runs)], rows) + note


def _layers(runs: Sequence[Shown]) -> str:
    names = list(dict.fromkeys(layer for each in runs for layer in each.run.layers))
    if not names:
        return ""
    head = ["layer"]
    for each in runs:
        head += [f"{each.name}: angle W, B (°)", "|B| / |W|"]
    rows = []
    for layer in names:
        row = [layer]
        for each in runs:
            last = each.run.at_end(layer)
            row += [_number(last.get(m, math.nan)) for m in ("weight_angle", "norm_ratio")]
        rows.append(row)
    return _table(head, rows)


def _what(shown: Shown) -> str:
    return ", ".join([shown.flag("dataset"), shown.flag("model"), shown.run.rule])


def _length(shown: Shown) -> str:
    done, meant = shown.last["epoch"], shown.run.epochs_meant
    of_all = f" of {meant:g}" if done + 1.0 <= meant else ""  # of a run that is under way
    return f"{done:g}{of_all} ({shown.last['global_step']:,.0f})"


def _best(shown: Shown) -> str:
    return f"{_percent(shown.best['val_top1'])} ({shown.best['epoch']:g})"


def _percent(value: float) -> str:
    return f"{100.0 * value:.2f} %" if math.isfinite(value) else "-"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def _time(shown: Shown, what: str) -> str:
    if shown.times is None:
        return "-"
    minutes, seconds = divmod(getattr(shown.times, what), 60.0)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds:.1f} s"


def _rate(shown: Shown) -> str:
    rate = shown.images_per_second
    return "-" if rate is None else f"{rate:,.0f}"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>\n{content}\n</section>" if content else ""


def _grid(images: Iterable[tuple[str, str]]) -> str:
    figures = [
        f'<figure><figcaption>{html.escape(name)}</figcaption><img alt="{html.escape(name)}" '
        f'src="{source}"></figure>'
        for name, source in images
    ]
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        first, *rest = map(html.escape, cells)
        first = first.replace("_", "_<wbr>")  # a flag's name may be broken there
        others = "".join(f"<{tag}>{cell}</{tag}>" for cell in rest)
        return f'<tr><th scope="row">{first}</th>{others}</tr>'

    body = "\n".join(line(row, "td") for row in rows)
    return (
        f'<div class="wide"><table><thead>{line(head, "th")}</thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )
