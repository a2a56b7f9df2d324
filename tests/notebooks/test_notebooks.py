"""The notebooks: as they are kept, and run from their first cell."""

import ast
import json
import re
import time

import pytest

from scripts import make_site, run_notebooks
from tests.docs.pages import README, ROOT, relative

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_BYTES = 300_000
MOST_SECONDS = 120.0

each = pytest.mark.parametrize("path", PATHS, ids=relative)


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def test_there_are_five_and_every_page_of_the_site_has_one():
    assert len(PATHS) == 5
    assert sorted(make_site.NOTEBOOKS) == PATHS
    assert all(relative(path) in README.read_text() for path in PATHS)


@each
def test_it_installs_itself_where_it_is_not_installed(path):
    first = source(cells(path, "code")[0])
    assert "import neural_alignment" in first and "except ImportError:" in first
    [extras] = re.findall(r'%pip install -q "neural-alignment\[([\w,]+)\]"', first)
    assert "figures" in extras.split(",")


@each
def test_what_is_kept_is_small_and_whole(path):
    assert path.stat().st_size < MOST_BYTES
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    assert outputs and not any(output["output_type"] == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = json.dumps(outputs)
    assert not re.search(r"/(?:work|root|home)/", text)


@each
def test_its_code_is_python(path):
    for cell in cells(path, "code"):
        ast.parse(re.sub(r"^(\s*)%.*$", r"\1pass", source(cell), flags=re.MULTILINE))


@pytest.mark.slow
@each
def test_it_runs(path):
    pytest.importorskip("ipykernel")
    began = time.monotonic()
    notebook = run_notebooks.execute(path)
    assert time.monotonic() - began < MOST_SECONDS
    assert any(cell.get("outputs") for cell in notebook.cells)
