"""The tables of results are those of benchmarks/results."""

import re

import pytest

from scripts import make_results


@pytest.mark.parametrize("page", make_results.PAGES, ids=lambda page: page.stem)
def test_the_page_has_the_results_that_are_there(page):
    text = page.read_text()
    assert make_results.refreshed(text) == text, "run scripts/make_results.py"


def test_every_file_of_results_has_a_place():
    text = "".join(page.read_text() for page in make_results.PAGES)
    placed = re.findall(r"<!-- results: ([\w.-]+) -->", text)
    assert sorted(placed) == sorted(path.stem for path in make_results.RESULTS.glob("*.csv"))
