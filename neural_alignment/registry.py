"""Registries: what there is of a kind, by name. Imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NoReturn, TypeVar

from neural_alignment.messages import did_you_mean

Thing = TypeVar("Thing")


class Registry(dict[str, "Thing | str"], Generic[Thing]):
    """Names, and what each stands for: the thing itself, or "module:attribute", where it is.

    Args:
        kind: of the things, with its article: "a model".
        entries: those that are known from the start.
    """

    def __init__(
        self, kind: str, entries: Mapping[str, Thing | str] | Iterable[tuple[str, Thing | str]] = ()
    ) -> None:
        super().__init__(entries)
        self.kind = kind

    def __missing__(self, name: str) -> NoReturn:
        raise ValueError(
            f"Expected {self.kind}'s name: {', '.join(self)}. "
            f"Received: {name!r}{did_you_mean(name, self)}."
        )

    def register(self, name: str) -> Callable[[Thing], Thing]:
        """Decorator: makes a thing known by a name of its own.

        Args:
            name: that no other has.

        Returns:
            The decorator; it returns the thing unchanged.

        Raises:
            ValueError: the name is taken.
        """
        if name in self:
            raise ValueError(
                f"Expected a new name for {self.kind}. Received: {name!r}, which is taken."
            )

        def add(thing: Thing) -> Thing:
            self[name] = thing
            return thing

        return add

    def load(self, name: str) -> Thing:
        """The thing of a name, imported where only its place is known.

        Args:
            name: of the thing.

        Returns:
            The thing.

        Raises:
            ValueError: there is none of this name.
        """
        entry = self[name]
        if not isinstance(entry, str):
            return entry
        module, _, attribute = entry.partition(":")
        return getattr(importlib.import_module(module), attribute)


def check_options(of: str, known: Sequence[str], given: Iterable[str]) -> None:
    """Checks the names of the options that are given for a thing of a registry.

    Args:
        of: the thing, in words.
        known: the options it takes.
        given: those that are given.

    Raises:
        ValueError: it takes no option of such a name.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"Expected options of {of}: {', '.join(known)}. Received: {', '.join(unknown)}."
        )
