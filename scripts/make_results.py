"""Writes the tables of pages of docs from benchmarks/results.

    python scripts/make_results.py [RUNS]

With RUNS, the --outdir of `neural-alignment reproduce`, its tables are taken first: the table.csv
of each recipe that a page shows becomes benchmarks/results/RECIPE.csv. A page has a table between
`<!-- results: NAME -->` and `<!-- end -->`; `tests/docs/test_results_pages.py` fails where a page
is behind.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "docs" / name for name in ("reproduction.md", "leaderboard.md", "cost.md")]
_PLACE = re.compile(
    r"(?P<begin><!-- results: (?P<name>[\w.-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


def taken(runs: pathlib.Path) -> list[str]:
    """Takes the tables of runs over into benchmarks/results.

    Args:
        runs: the --outdir of `neural-alignment reproduce`.

    Returns:
        The names of what was taken.
    """
    shown = {m["name"] for page in PAGES for m in _PLACE.finditer(page.read_text(encoding="utf-8"))}
    names = sorted({path.parent.name for path in runs.glob("*/table.csv")} & shown)
    for name in names:
        shutil.copyfile(runs / name / "table.csv", RESULTS / f"{name}.csv")
    return names


def table(name: str) -> str:
    """A table of a page.

    Args:
        name: of a file of benchmarks/results, without .csv.

    Returns:
        Markdown.
    """
    from neural_alignment.reproduce import leaderboard, results

    text = (RESULTS / f"{name}.csv").read_text(encoding="utf-8")
    if name.startswith("leaderboard"):
        return f"\n{leaderboard.to_markdown(leaderboard.from_csv(text))}\n"
    return f"\n{results.to_markdown(results.from_csv(text))}\n"


def refreshed(page: str) -> str:
    """A page's text with its tables as the results have them now.

    Args:
        page: the text.

    Returns:
        The text with every table between its marks made anew.
    """
    return _PLACE.sub(lambda m: m["begin"] + table(m["name"]) + m["end"], page)


def main() -> None:
    """Takes what a command line names, writes the pages that are behind, and says which."""
    for name in taken(pathlib.Path(sys.argv[1])) if len(sys.argv) > 1 else []:
        print(f"took {name}")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = refreshed(text)
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
