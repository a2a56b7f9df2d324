"""The data sets' names, and where each is loaded from. Imports nothing heavy."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neural_alignment.registry import Registry, check_options

if TYPE_CHECKING:
    from neural_alignment.data.dataset import Dataset

_log = logging.getLogger(__name__)

# A loader is `loader(name, **options) -> Dataset`.
_LOADERS: Registry[Callable[..., Dataset]] = Registry(
    "a data set",
    {
        "digits": f"{__package__}.digits:load",
        "mnist": f"{__package__}.local:load_plain",
        "fashion_mnist": f"{__package__}.local:load_plain",
        "cifar10": f"{__package__}.cifar:load",
        "cifar100": f"{__package__}.cifar:load",
        "image_folder": f"{__package__}.folders:load",
        "imagenet": f"{__package__}.imagenet:load",
        "imagenet2012": f"{__package__}.imagenet:load_tfds",
    },
)


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
    return _LOADERS.register(name)


def options(name: str) -> tuple[str, ...]:
    """The options that `get(name, ...)` takes.

    Args:
        name: one of `names()`.

    Returns:
        The names of the loader's keyword arguments.

    Raises:
        ValueError: no such data set.
    """
    return tuple(inspect.signature(_LOADERS.load(name)).parameters)[1:]


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
    check_options(f"the data set {name!r}", options(name), kwargs)
    if kwargs.get("data_dir") is not None:
        kwargs["data_dir"] = os.fspath(kwargs["data_dir"])
        if not kwargs["data_dir"]:
            raise ValueError(f"Expected a folder with {name} as data_dir. Received: ''.")
    dataset = _LOADERS.load(name)(name, **kwargs)
    if dataset.source:
        _log.info("%s: %s", name, dataset.source)
    return dataset
