"""Makes Keras know this package's classes as soon as both are imported, in whatever order.

`keras.saving.load_model` finds a class if it is registered, which happens when its module is
imported. Importing Keras takes seconds, which flags and `--help` must not wait for: so what is
registered is so when Keras is there, and not before.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence

from neural_alignment import extras

# Every module with a class that a `.keras` file may name.
_MODULES = (
    "neural_alignment.layers",
    "neural_alignment.models.normalization",
    "neural_alignment.models.resnet_cifar",
    "neural_alignment.optimizers",
)


def register() -> None:
    """Imports every module with a class that a `.keras` file may name."""
    for name in _MODULES:
        module = importlib.import_module(name)
        getattr(module, "register_classes", lambda: None)()


def register_with_keras() -> None:
    """Registers now if Keras is imported, else as soon as it is."""
    if "keras" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds Keras as it would be found, and registers once it is imported; nothing else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(importlib.abc.Loader):
    """A loader that registers after its module is executed.

    Args:
        loader: that of the module.
    """

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        # Keras's own loader again, as importlib.resources and others look for it.
        module.__spec__.loader = module.__loader__ = self._loader
        try:
            self._loader.exec_module(module)
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name in extras.BACK_ENDS and extras.missing(name):
                raise ImportError(extras.back_end_message(name)) from error
            raise
        register()
