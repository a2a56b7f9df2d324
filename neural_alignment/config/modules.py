"""Modules of the user's own, which register rules, models, data sets or optimizers."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import pathlib
import sys
from collections.abc import Iterable

from neural_alignment.config.options import UsageError, module_name
from neural_alignment.messages import told


def import_modules(names: Iterable[str]) -> None:
    """Imports modules, so that what they register has a name; before flags are defined.

    Args:
        names: modules as `import` takes them, looked for in the working directory too, or paths
            of .py files; or several with commas.

    Raises:
        UsageError: one cannot be imported.
    """
    for name in itertools.chain(*(name.split(",") for name in names)):
        try:
            _import(name)
        except Exception as error:  # the module's own code runs
            raise UsageError(
                f"--import: expected a module, or a .py file, that can be imported. "
                f"Received: {name!r} ({told(error)})"
            ) from error


def _import(name: str) -> None:
    if not name.endswith(".py"):
        here = str(pathlib.Path.cwd())
        if here not in sys.path:
            sys.path.append(here)
        importlib.import_module(name)
        return
    path = pathlib.Path(module_name(name))
    loaded = sys.modules.get(path.stem)
    if loaded is not None:
        if getattr(loaded, "__file__", None) != str(path):
            raise ImportError(f"there is another module {path.stem!r}, {loaded}")
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
