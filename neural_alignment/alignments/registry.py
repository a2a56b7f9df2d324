"""The rules by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from neural_alignment.alignments.alignment import Alignment
from neural_alignment.registry import Registry

_RULES: Registry[type[Alignment]] = Registry("a rule")


def register(name: str) -> Callable[[type[Alignment]], type[Alignment]]:
    """Class decorator: makes a rule known by `name` to `get`, flags, tables and tests.

    Args:
        name: of the rule.

    Returns:
        The decorator.

    Raises:
        ValueError: the name is taken.
    """
    add = _RULES.register(name)

    def named(cls: type[Alignment]) -> type[Alignment]:
        cls.name = name
        return add(cls)

    return named


def names() -> tuple[str, ...]:
    """Names of the registered rules, sorted."""
    return tuple(sorted(_RULES))


def layer_names() -> tuple[str, ...]:
    """Names of the rules of single layers, sorted: without those of whole models."""
    return tuple(name for name in names() if not rule(name).of_model)


def rule(name: str) -> type[Alignment]:
    """The class registered under a name.

    Args:
        name: of the rule.

    Returns:
        The class.

    Raises:
        ValueError: there is no such rule.
    """
    return _RULES.load(name)


def get(identifier: str | Mapping[str, Any] | Alignment | None) -> Alignment | None:
    """A rule from its name, its config or itself; None is backpropagation.

    Args:
        identifier: "symmetric", `{"name": "symmetric", "self_coef": 1e-3}`, an `Alignment`, None
            or "backprop". A config's "module" says where a rule of one's own is.

    Returns:
        The rule, or None.

    Raises:
        ValueError: an unknown name.
        TypeError: an unknown option, or an identifier of another type.
    """
    if identifier is None or identifier == "backprop" or isinstance(identifier, Alignment):
        return identifier if isinstance(identifier, Alignment) else None
    if isinstance(identifier, str):
        return rule(identifier)()
    if isinstance(identifier, Mapping) and "name" in identifier:
        options = dict(identifier)
        name, module = options.pop("name"), options.pop("module", None)
        if module is not None and name not in _RULES:
            raise ValueError(
                f"Expected the rule {name!r} to be registered, which {_place(module)} does when it "
                f"is imported. Received: a config of the rule, and only {', '.join(names())}. "
                "Import it first."
            )
        return rule(name).from_config(options)
    raise TypeError(
        "Expected a rule's name, a config with a 'name', an Alignment or None. "
        f"Received: {identifier!r}"
    )


def serialize(alignment: Alignment | None) -> dict[str, Any] | None:
    """The config that `get` turns back into an equal rule.

    Args:
        alignment: a rule or None.

    Returns:
        `{"name": ..., option: value, ...}`, or None; of a rule that is not this package's with its
        module, for who loads it without.
    """
    if alignment is None:
        return None
    module = type(alignment).__module__
    place = {} if module.startswith(f"{__package__}.") else {"module": module}
    return {"name": alignment.name} | place | alignment.get_config()


def _place(module: str) -> str:
    return "the script or notebook it was made in" if module == "__main__" else f"module {module!r}"
