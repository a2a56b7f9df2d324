"""The house rules that a machine can check: imports, arrows, print, versions, make targets."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import neural_alignment

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "neural_alignment"
MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(PACKAGE)], prefix="neural_alignment.")
)
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Arrows point down only: what the modules of a subpackage may import of the others.
_RULES = {"backend", "maps", "alignments"}
MAY_IMPORT = {
    "backend": set(),
    "maps": {"backend"},
    "noise.py": {"backend"},
    "alignments": {"backend", "maps"},
    "layers": _RULES,
    "data": set(),
    "optimizers": {"backend"},
    "metrics.py": _RULES | {"layers"},
    "figures": set(),
    "error_metrics.py": _RULES | {"layers", "metrics.py"},
    "connection_metrics.py": _RULES | {"layers", "metrics.py"},
    "callbacks": _RULES | {"layers", "optimizers"},
    "models": _RULES | {"layers"},
    "config": {"alignments", "data", "optimizers", "models", "runs"},
    "runs": set(),
    "training": _RULES | {"layers", "data", "optimizers", "models", "callbacks", "config", "runs"},
    "search": {"config", "runs", "training"},
    "cli": {"config", "data", "runs", "training", "search"},
}
# Imported to declare flags, where loading TensorFlow would take seconds.
LIGHT = (
    "neural_alignment",
    "neural_alignment.alignments",
    "neural_alignment.backend",
    "neural_alignment.cli.train",
    "neural_alignment.config",
    "neural_alignment.data",
    "neural_alignment.maps",
)


# Former places of what is elsewhere now; they warn.
MOVED = ("neural_alignment.layers.operations", "neural_alignment.training.metrics")
# What imports another framework than the one the tests run on.
FOREIGN = ("neural_alignment.backend.jax", "neural_alignment.backend.torch")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """The modules a file imports, at the top or in a function, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{relative(path)}: relative import, line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_checks_see_the_package():
    assert {"neural_alignment.alignments", "neural_alignment.data.digits"} <= set(MODULES)
    assert len(SOURCES) > len(MODULES) / 2


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported(module):
    if module in FOREIGN:
        pytest.skip("another back end's")
    if module in MOVED:
        with pytest.warns(DeprecationWarning, match="has moved"):
            sys.modules.pop(module, None)
            importlib.import_module(module)
    else:
        importlib.import_module(module)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_no_tensorflow(module):
    code = f"import sys, {module}; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_arrows_point_down(path):
    subpackage = path.relative_to(PACKAGE).parts[0]
    if subpackage not in MAY_IMPORT:
        assert path.parent == PACKAGE or path.parent.name == "presets", (
            "give it a row in MAY_IMPORT"
        )
        allowed = set()
    else:
        allowed = MAY_IMPORT[subpackage] | {subpackage}
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "neural_alignment" and len(parts) > 1 and parts[1] in MAY_IMPORT:
            assert parts[1] in allowed, f"{relative(path)} imports {name}"


# What is longer than the house has it, and why.
LONG_FILES = {
    "alignments/alignment.py": "the base classes of rules, read together",
    "optimizers/rate_scheduler.py": "one family of schedules; half of it is docstrings",
}
LONG_FUNCTIONS = {"average_gradients": "one loop of TensorFlow's with its state"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    name = path.relative_to(PACKAGE).as_posix()
    assert len(text.splitlines()) <= 400 or name in LONG_FILES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name not in LONG_FUNCTIONS:
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{name}: {node.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_print_and_no_bare_except(path):
    for node in ast.walk(ast.parse(path.read_text())):
        bare = isinstance(node, ast.ExceptHandler) and node.type is None
        printed = (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        )
        assert not (bare or printed), f"{relative(path)}, line {node.lineno}"


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "neural_alignment.__version__"
    }
    files = [ROOT / name for name in ("pyproject.toml", "setup.py", "CITATION.cff", "Makefile")]
    for path in [*files, *SOURCES]:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if re.search(rf"version\W+{re.escape(neural_alignment.__version__)}", line):
                assert path == PACKAGE / "__init__.py", f"{relative(path)}, line {number}"


def test_imported_libraries_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = list(project["dependencies"])
    for requirements in project["optional-dependencies"].values():
        declared += requirements
    known = {re.split(r"[^\w-]", name)[0].replace("-", "_").lower() for name in declared}
    # Names under which declared distributions are imported.
    known |= {"absl", "pil", "tensorflow"}
    known |= set(sys.stdlib_module_names) | {"neural_alignment"}
    used = {(relative(path), name.split(".")[0]) for path in SOURCES for name in imports(path)}
    assert {(path, name) for path, name in used if name.lower() not in known} == set()


def test_package_data_is_packaged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    extra = [
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and path.name[0] != "."
    ]
    assert PACKAGE / "data" / "digits.npz" in extra
    assert [relative(path) for path in extra if not any(map(path.match, patterns))] == []


@pytest.mark.parametrize("name", ["README.md", ".ci/run"])
def test_make_commands_are_targets_of_the_makefile(name):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"(?:^|`)\s*make ([a-z0-9-]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert "test" in used
    assert used <= targets


def test_ci_can_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ".ci/run"], cwd=ROOT, check=True)
