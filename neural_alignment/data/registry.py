"""The data sets' names, and where each is loaded from. Imports nothing heavy."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neural_alignment.messages import did_you_mean

if TYPE_CHECKING:
    from neural_alignment.data.dataset import Dataset

_log = logging.getLogger(__name__)

# A loader is `loader(name, **options) -> Dataset`, or where to import it from.
_LOADERS: dict[str, Callable[..., Dataset] | str] = {
    "digits": "neural_alignment.data.digits:load",
    "mnist": "neural_alignment.data.local:load_plain",
    "fashion_mnist": "neural_alignment.data.local:load_plain",
    "cifar10": "neural_alignment.data.cifar:load",
    "cifar100": "neural_alignment.data.cifar:load",
    "image_folder": "neural_alignment.data.folders:load",
    "imagenet": "neural_alignment.data.imagenet:load",
    "imagenet2012": "neural_alignment.data.imagenet:load_tfds",
}


def names() -> tuple[str, ...]:
    """The names that `get` knows, sorted."""
    return tuple(sorted(_LOADERS))


def register(name: str) -> Callable[[Callable[..., Dataset]], Callable[..., Dataset]]:
    """Decorator: registers `loader(name, **options) -> Dataset` under a name of its own.

    Args:
        name: the name `get` and `--dataset` will know.

    Returns:
        The decorator; it returns the loader unchanged.

    Raises:
        ValueError: the name is taken.
    """
    if name in _LOADERS:
        raise ValueError(f"Expected a new data set name. Received: {name!r}, which is taken.")

    def add(loader: Callable[..., Dataset]) -> Callable[..., Dataset]:
        _LOADERS[name] = loader
        return loader

    return add


def options(name: str) -> tuple[str, ...]:
    """The options that `get(name, ...)` takes.

    Args:
        name: one of `names()`.

    Returns:
        The names of the loader's keyword arguments.

    Raises:
        ValueError: no such data set.
    """
    return tuple(inspect.signature(_loader(name)).parameters)[1:]


def get(name: str, **kwargs: Any) -> Dataset:
    """Loads a data set by name, and says in one line of the log what was found.

    Args:
        name: one of `names()`.
        **kwargs: the loader's options, `options(name)`, such as `image_size` (pixels a side; None
            keeps the set's own) and, where the data is not embedded, `data_dir` and `download`.

    Returns:
        The data set.

    Raises:
        ValueError: unknown name or option, or an option's value makes no sense.
        FileNotFoundError: the data is not where it was looked for.
    """
    valid = options(name)
    unknown = sorted(set(kwargs) - set(valid))
    if unknown:
        raise ValueError(
            f"Expected options of the data set {name!r}: {', '.join(valid)}. "
            f"Received: {', '.join(unknown)}."
        )
    if kwargs.get("data_dir") is not None:
        kwargs["data_dir"] = os.fspath(kwargs["data_dir"])
        if not kwargs["data_dir"]:
            raise ValueError(f"Expected a folder with {name} as data_dir. Received: ''.")
    dataset = _loader(name)(name, **kwargs)
    if dataset.source:
        _log.info("%s: %s", name, dataset.source)
    return dataset


def _loader(name: str) -> Callable[..., Dataset]:
    if name not in _LOADERS:
        raise ValueError(
            f"Expected a data set: {', '.join(names())}. "
            f"Received: {name!r}{did_you_mean(name, names())}."
        )
    loader = _LOADERS[name]
    if isinstance(loader, str):
        module, _, function = loader.partition(":")
        loader = getattr(importlib.import_module(module), function)
    return loader
