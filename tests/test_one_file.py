"""A rule is one file: the README's, put into the package, needs no other edit but `make docs`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import README, ROOT, blocks

FOLDERS = ("neural_alignment", "tests", "scripts", "benchmarks", "docs", "notebooks", ".ci")
# Of every kind of table that a rule is in, what is quick: options, flags, pages, gradients, cost.
QUICK = (
    "tests/docs/test_tables.py",
    "tests/alignments/test_options.py",
    "tests/training/test_flags.py",
    "tests/layers/test_gradients.py",
    "tests/test_cost.py",
)
QUICK_NAMES = (
    "fresh or the_rules or (cosine and not (conv or einsum or separable or depthwise or xla))"
)
# What names the rule, and what goes over every rule at once.
ALL = (
    "cosine or fresh or every_rule or all_rules or leaves_no or test_readme or test_frame or "
    "test_conformance or test_package"
)
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-x")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of the repository with one file more, and its pages written anew."""
    copy = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, copy / file.name)
    (rule,) = (code for code in blocks(README, "python") if "@register" in code)
    (copy / "neural_alignment" / "alignments" / "cosine.py").write_text(f'"""Cosine."""\n\n{rule}')
    result = run(copy, "scripts/make_docs.py")
    assert "wrote README.md" in result.stdout, result.stderr[-3000:]
    return copy


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)


def passed(result: subprocess.CompletedProcess) -> int:
    """How many tests passed, where none failed."""
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    return int(re.search(r"(\d+) passed", result.stdout)[1])


@pytest.mark.slow
def test_the_quick_tests_pass(repository):
    result = run(repository, *PYTEST, "-v", *QUICK, "-k", QUICK_NAMES)
    assert passed(result) > 30
    for file in QUICK[1:]:
        assert re.search(rf"^{file}::.*cosine", result.stdout, re.MULTILINE), file
    changed = [
        page.name
        for page in (README, *(ROOT / "docs").glob("*.md"))
        if page.read_text() != (repository / page.relative_to(ROOT)).read_text()
    ]
    assert sorted(changed) == ["README.md", "cost.md", "flags.md", "rules.md"]


@pytest.mark.slow
def test_all_that_goes_over_the_rules_passes(repository):
    result = run(repository, *PYTEST, "-q", "--deselect=tests/test_one_file.py", "tests", "-k", ALL)
    assert passed(result) > 500
