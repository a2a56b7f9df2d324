"""The tables of results are those of benchmarks/results."""

import re

import pytest

from neural_alignment.reproduce import results
from scripts import make_results


@pytest.mark.parametrize("page", make_results.PAGES, ids=lambda page: page.stem)
def test_the_page_has_the_results_that_are_there(page):
    text = page.read_text()
    assert make_results.refreshed(text) == text, "run scripts/make_results.py"


def test_every_file_of_results_has_a_place():
    text = "".join(page.read_text() for page in make_results.PAGES)
    placed = re.findall(r"<!-- results: ([\w.-]+) -->", text)
    assert sorted(placed) == sorted(path.stem for path in make_results.RESULTS.glob("*.csv"))


@pytest.mark.parametrize("sd", [0.145029, 0.1449999, 2.345001])
def test_a_file_of_results_rounds_no_number_that_a_page_rounds(sd):
    row = results.Row(
        quantity="test accuracy, %",
        series="BP",
        value="",
        published=(),
        published_sd=None,
        ours=(88.7233,),
        ours_sd=(sd,),
        seeds=3,
        seconds=None,
    )
    again = results.from_csv(results.to_csv([row]))
    assert results.to_markdown(again) == results.to_markdown([row])
    assert f"88.72 ± {sd:.2f}" in results.to_markdown(again)
