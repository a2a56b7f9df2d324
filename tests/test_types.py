"""What is silenced has its reason, and the package says that it is typed."""

import re
import tomllib

import pytest

from tests.docs.pages import ROOT

PACKAGE = ROOT / "neural_alignment"
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("folder", ["alignments", "layers", "optimizers"])
def test_these_are_checked_strictly(folder):
    assert CONFIG["strict"] and f"neural_alignment.{folder}" in CONFIG["packages"]


def test_no_error_is_silenced_without_its_reason():
    """On the line, or in a comment above it."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            match = re.search(r"# type: ignore(\[[\w-]+\])?(.*)", line)
            if match is None:
                continue
            above = lines[max(0, number - 2) : number]
            explained = "#" in match[2] or any(each.lstrip().startswith("# ") for each in above)
            if not (match[1] and explained):
                found.append(f"{path.relative_to(ROOT)}:{number + 1}: {line.strip()}")
    assert not found
