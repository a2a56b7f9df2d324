"""The tables that repeat what the code says are those that the code gives now."""

import pytest

from scripts import make_docs
from tests.docs.pages import ROOT, relative

PLACED = [(page, name) for page in make_docs.PAGES for name in make_docs.places(page.read_text())]


@pytest.mark.parametrize(("page", "name"), PLACED, ids=lambda value: getattr(value, "stem", value))
def test_a_table_is_fresh(page, name):
    text = page.read_text()
    written = make_docs.TABLES[name]()
    assert f"<!-- generated: {name} -->\n{written}<!-- end -->" in text, (
        f"{relative(page)} is behind the code: run `make docs` (scripts/make_docs.py)"
    )


def test_every_table_has_a_place_and_every_place_a_table():
    assert sorted(name for _, name in PLACED) == sorted(make_docs.TABLES)
    marks = [page.read_text().count("<!-- generated: ") for page in make_docs.PAGES]
    assert sum(marks) == len(PLACED), "a mark without its end"


def test_a_page_that_is_behind_is_written_anew_and_the_rest_of_it_stays():
    page = (ROOT / "docs" / "rules.md").read_text()
    behind = page.replace("| `expansion` | product | 10 |", "| `expansion` | product | 11 |")
    assert behind != page
    assert make_docs.refreshed(behind) == page
    with pytest.raises(KeyError, match="no_such_table"):
        make_docs.refreshed("<!-- generated: no_such_table -->\n<!-- end -->")


def test_cells_keep_their_column():
    assert make_docs.table(("a", "b"), [("x|y", ""), ("one\ntwo", "z")]) == (
        "| a | b |\n|---|---|\n| x\\|y | |\n| one two | z |\n"
    )
