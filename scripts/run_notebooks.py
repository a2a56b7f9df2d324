"""Runs notebooks from their first cell and keeps what they show.

    python scripts/run_notebooks.py notebooks/*.ipynb

`make notebooks` runs it. Whatever is of one execution alone (times, counts) is left out, so that
a run which shows the same changes nothing.
"""

from __future__ import annotations

import os
import pathlib
import sys
import time

TIMEOUT = 300  # seconds that a cell may take


def execute(path: pathlib.Path) -> object:
    """Runs a notebook.

    Args:
        path: of the file; it is left as it is.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    nbclient.NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", record_timing=False
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # What libraries say of themselves when they start is no result.
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main(paths: list[str]) -> None:
    """Runs notebooks in place, and says how long each took.

    Args:
        paths: of the files.
    """
    import nbformat

    for path in map(pathlib.Path, paths):
        began = time.monotonic()
        nbformat.write(execute(path), path)
        size = path.stat().st_size / 1000
        print(f"{path}: {time.monotonic() - began:.0f} s, {size:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
