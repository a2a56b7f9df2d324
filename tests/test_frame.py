"""The house rules that a machine can check: arrows, sizes, private names, versions, targets."""

import ast
import functools
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import keras
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
    "figures": {"config", "runs", "search"},
    "error_metrics.py": _RULES | {"layers", "metrics.py"},
    "connection_metrics.py": _RULES | {"layers", "metrics.py"},
    "callbacks": _RULES | {"layers", "optimizers"},
    "models": _RULES | {"layers"},
    "config": {"alignments", "data", "optimizers", "models", "runs"},
    "runs": set(),
    "training": _RULES | {"layers", "data", "optimizers", "models", "callbacks", "config", "runs"},
    "search": {"config", "runs", "training"},
    "report": {"alignments", "config", "figures", "runs"},
    "reproduce": {"alignments", "config", "data", "figures", "runs", "search", "training"},
    "cli": {"config", "data", "figures", "report", "reproduce", "runs", "search", "training"},
    "__main__.py": {"cli"},
}
# Imported to declare flags, where loading TensorFlow would take seconds.
LIGHT = (
    "neural_alignment",
    "neural_alignment.alignments",
    "neural_alignment.backend",
    "neural_alignment.cli.figures",
    "neural_alignment.cli.train",
    "neural_alignment.config",
    "neural_alignment.data",
    "neural_alignment.maps",
)


# What imports another framework than the one the tests run on.
FOREIGN = tuple(f"neural_alignment.backend.{name}" for name in ("jax", "torch", "torch_transposes"))

ALL_FILES = sorted(
    path
    for folder in ("neural_alignment", "scripts", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
MOST_LINES, MOST_OF_A_FUNCTION = 400, 60
# Longer than a file should be, and why.
LONG_FILES = {
    "neural_alignment/optimizers/rate_scheduler.py": "one family of schedules, half docstrings",
    "tests/data/test_imagenet.py": "cases of one reader, on shards made at the top",
    "tests/data/test_local.py": "cases of one reader, on files made at the top",
    "tests/data/test_prepare_imagenet.py": "cases of one script, on archives made at the top",
    "tests/layers/test_direct.py": "what one way of feedback must do in every layer and training",
    "tests/layers/test_conformance.py": "what one table of rules and layers must do",
}
# What Keras's optimizers have for subclasses, public or not: every one of Keras's own uses them.
SUBCLASS_HOOKS = {
    "_apply_weight_decay": "overridden: on PyTorch it fails where every variable is excluded",
    "_get_current_learning_rate": "overridden: a schedule sees updates, not batches",
    "_get_variable_index": "a variable's slot in the lists that build has made",
    "_iterations": "the count of batches, where `iterations` is overridden to count updates",
    "_learning_rate": "the schedule, where `learning_rate` gives its value",
    "_model_variables_moving_average": "overridden: the averages are the nested optimizers'",
    "_trainable_variables": "the variables that build was given",
    "_use_weight_decay": "overridden: the nested optimizer's",
    "_variables": "its own, where `variables` is overridden to have the nested optimizers' too",
}
# Private names of other libraries.
ELSEWHERE = {
    "neural_alignment/search/forkserver.py": {
        "_exit": "a forked child ends without its parent's handlers",
        "_run_exitfuncs": "but with its own",
    },
    "neural_alignment/search/spark.py": {
        "_dynamic_trials": "hyperopt's SparkTrials shows what has ended nowhere else",
    },
}


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


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_what_is_private_in_keras_stands_in_one_module(path):
    """An attribute with an underscore is the package's own, or named above with its reason."""
    if path.name == "keras_private.py":
        return
    allowed = _of_the_package() | ELSEWHERE.get(relative(path), {}).keys()
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{relative(path)}, line {getattr(node, 'lineno', 0)}"
        for name, is_own in _private_names(node):
            hook = is_own and name in SUBCLASS_HOOKS and path.parent.name == "optimizers"
            private_of_keras = name in _of_keras() and not is_own
            assert hook or (name in allowed and not private_of_keras), (
                f"{where}: {name} is not this package's; put it into keras_private.py"
            )
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not any(re.match(r"keras\.(src|_)", name) for name in names), where


def _private_names(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """(attribute, whether it is asked of self or cls) where a node asks for a private one."""
    if isinstance(node, ast.Attribute):
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        own |= isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
        name = node.attr
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
        if not (len(node.args) > 1 and isinstance(node.args[1], ast.Constant)):
            return
        own, name = ast.unparse(node.args[0]) in ("self", "cls"), str(node.args[1].value)
    else:
        return
    if re.fullmatch(r"_[a-z]\w*", name):
        yield name, own


@functools.cache
def _of_the_package() -> set[str]:
    """The names with an underscore that the package itself gives to something."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if path.name != "keras_private.py":
                    found.add(node.attr)
    return found - SUBCLASS_HOOKS.keys()


@functools.cache
def _of_keras() -> set[str]:
    """Names with an underscore of Keras's layers, models, optimizers, callbacks and metrics."""
    classes = (
        keras.Model, keras.Layer, keras.Optimizer, keras.callbacks.Callback,
        keras.callbacks.CallbackList, keras.metrics.Metric, keras.Variable,
    )  # fmt: skip
    sources = [
        inspect.getsource(base) for c in classes for base in c.__mro__ if "keras" in base.__module__
    ]
    found = set(re.findall(r"self\.(_[a-z]\w*)|def (_[a-z]\w*)", "\n".join(sources)))
    return {name for pair in found for name in pair if name}


def test_the_check_sees_what_is_private_in_keras():
    """Names that this package has reached for outside, and those a plain look finds."""
    assert {"_metrics", "_flatten_layers", "_iterations", "_losses"} <= _of_keras()
    code = "model._metrics; self._iterations; getattr(layer, '_losses'); self.path; x.__dict__"
    found = [pair for node in ast.walk(ast.parse(code)) for pair in _private_names(node)]
    assert sorted(found) == [("_iterations", True), ("_losses", False), ("_metrics", False)]


@pytest.mark.parametrize("path", ALL_FILES, ids=relative)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    lines = len(text.splitlines())
    assert lines <= MOST_LINES or relative(path) in LONG_FILES, f"{lines} lines: split it by jobs"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MOST_OF_A_FUNCTION, f"{relative(path)}: {node.name}, {length} lines"


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
    known |= {"sklearn", "absl", "pil", "tensorflow"}
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
