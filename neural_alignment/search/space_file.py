"""Reads search spaces: built-in ones by name, a user's from a file (docs/search.md)."""

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neural_alignment.search.space import (
    DISTRIBUTIONS,
    RESERVED,
    FlagValue,
    Option,
    Parameter,
    Space,
    SpaceError,
    flags_set,
    is_number,
)

_BUILT_IN = Path(__file__).parent / "spaces"
_SPACE_KEYS = {
    "name", "description", "extends", "remove", "schedule_epochs", "max_epochs", "flags",
    "parameters",
}  # fmt: skip
_PARAMETER_KEYS = {"name", "distribution", "flag", "low", "high", "times", "options"}
_OPTION_KEYS = {"value", "flags", "parameters"}


def names() -> tuple[str, ...]:
    """The names of the built-in spaces."""
    found = sorted(path.stem for path in _BUILT_IN.glob("*.toml"))
    return tuple(name for name in found if not name.startswith("_"))


def load(identifier: str) -> Space:
    """A space by its name, or from a file.

    Args:
        identifier: A built-in name, or the path of a .toml or .json file.

    Raises:
        SpaceError: no such space, or a file that does not hold one.
    """
    if identifier not in names() and not identifier.endswith((".toml", ".json")):
        raise SpaceError(
            f"Expected a space out of {', '.join(names())}, or a .toml or .json file. "
            f"Received {identifier!r}."
        )
    path = _BUILT_IN / f"{identifier}.toml" if identifier in names() else Path(identifier)
    return from_data(_read_merged(path, ()), source=str(path))


def from_data(data: Mapping[str, Any], source: str = "space") -> Space:
    """A space from plain data, checked.

    Args:
        data: The contents of a space file, without `extends`.
        source: What to call it in errors.

    Raises:
        SpaceError: naming the part that is wrong and what was expected.
    """
    _check_keys(data, _SPACE_KEYS - {"extends", "remove"}, source)
    for key in ("name", "schedule_epochs", "max_epochs", "parameters"):
        if key not in data:
            raise SpaceError(f"{source}: Expected the key {key!r}; it is missing.")
    _check_type(data["name"], str, f"{source}: name")
    _check_type(data.get("description", ""), str, f"{source}: description")
    for key in ("schedule_epochs", "max_epochs"):
        if _number(data[key], f"{source}: {key}") <= 0:
            raise SpaceError(f"{source}: {key}: Expected more than 0. Received {data[key]!r}.")
    if data["max_epochs"] > data["schedule_epochs"]:
        raise SpaceError(
            f"{source}: Expected max_epochs <= schedule_epochs. "
            f"Received {data['max_epochs']} and {data['schedule_epochs']}."
        )
    space = Space(
        name=data["name"],
        description=data.get("description", ""),
        schedule_epochs=data["schedule_epochs"],
        max_epochs=data["max_epochs"],
        flags=_flags(data.get("flags", {}), f"{source}: flags"),
        parameters=_parameters(data["parameters"], source),
    )
    check(space, source)
    return space


def _read_merged(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """A file's data laid over the data of the spaces it extends."""
    if path in seen:
        raise SpaceError(f"{path} extends itself.")
    data = _read(path)
    bases = data.pop("extends", [])
    merged: dict[str, Any] = {"flags": {}, "parameters": []}
    for base in [bases] if isinstance(bases, str) else bases:
        _check_type(base, str, f"{path}: extends")
        built_in = _BUILT_IN / f"{base}.toml"
        where = path.parent / base if base.endswith((".toml", ".json")) else built_in
        merged = _overlay(merged, _read_merged(where, (*seen, path)), path)
    return _overlay(merged, data, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise SpaceError(f"The space file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        kind = path.suffix[1:].upper()
        raise SpaceError(f"The space file {path} is not valid {kind}: {error}.") from error
    _check_type(data, dict, str(path))
    _check_keys(data, _SPACE_KEYS, str(path))
    _check_type(data.get("flags", {}), dict, f"{path}: flags")
    _check_type(data.get("parameters", []), list, f"{path}: parameters")
    for position, entry in enumerate(data.get("parameters", [])):
        _check_type(entry, dict, f"{path}: parameters[{position}]")
    return data


def _overlay(base: dict[str, Any], data: dict[str, Any], path: Path) -> dict[str, Any]:
    """`data` over `base`: later keys and flags win; a parameter replaces its namesake."""
    removed = data.get("remove", [])
    _check_type(removed, list, f"{path}: remove")
    flags = dict(base["flags"])
    parameters = {entry.get("name"): entry for entry in base["parameters"]}
    for name in removed:
        if name not in flags and name not in parameters:
            raise SpaceError(f"{path}: remove: no flag or parameter {name!r} to leave out.")
        flags.pop(name, None)
        parameters.pop(name, None)
    flags.update(data.get("flags", {}))
    own = data.get("parameters", [])
    own_names = [entry.get("name") for entry in own]
    for name in own_names:
        if name is not None and own_names.count(name) > 1:
            raise SpaceError(f"{path}: two parameters are called {name!r}.")
    for position, entry in enumerate(own):
        if "name" not in entry:
            raise SpaceError(f"{path}: parameters[{position}]: the key 'name' is missing.")
        parameters[entry["name"]] = entry
    rest = {key: value for key, value in data.items() if key not in ("extends", "remove")}
    return {**base, **rest, "flags": flags, "parameters": list(parameters.values())}


def _parameters(entries: Any, where: str) -> tuple[Parameter, ...]:
    _check_type(entries, list, f"{where}: parameters")
    parsed = []
    for position, entry in enumerate(entries):
        place = f"{where}: parameters[{position}]"
        _check_type(entry, dict, place)
        if isinstance(entry.get("name"), str):
            place = f"{place} ({entry['name']})"
        parsed.append(_parameter(entry, place))
    return tuple(parsed)


def _parameter(entry: Mapping[str, Any], where: str) -> Parameter:
    _check_keys(entry, _PARAMETER_KEYS, where)
    for key in ("name", "distribution"):
        if key not in entry:
            raise SpaceError(f"{where}: the key {key!r} is missing.")
        _check_type(entry[key], str, f"{where}: {key}")
    for key in ("flag", "times"):
        _check_type(entry.get(key, ""), str, f"{where}: {key}")
    distribution = entry["distribution"]
    if distribution not in DISTRIBUTIONS:
        raise SpaceError(
            f"{where}: distribution: Expected one of {', '.join(DISTRIBUTIONS)}. "
            f"Received {distribution!r}."
        )
    discrete = distribution in ("choice", "boolean")
    unknown = {"low", "high", "times"} & set(entry) if discrete else {"options"} & set(entry)
    if unknown:
        raise SpaceError(f"{where}: a {distribution} has no {', '.join(sorted(unknown))}.")
    if distribution != "choice" and "flag" not in entry:
        raise SpaceError(f"{where}: the key 'flag' is missing: which training flag does it set?")
    if discrete:
        options = _options(entry, where)
        return Parameter(
            name=entry["name"], distribution=distribution, flag=entry.get("flag"), options=options
        )
    low, high = _bounds(entry, where)
    return Parameter(
        name=entry["name"],
        distribution=distribution,
        flag=entry["flag"],
        low=low,
        high=high,
        times=entry.get("times"),
    )


def _bounds(entry: Mapping[str, Any], where: str) -> tuple[float, float]:
    for key in ("low", "high"):
        if key not in entry:
            raise SpaceError(f"{where}: a {entry['distribution']} needs the bound {key!r}.")
    low = _number(entry["low"], f"{where}: low")
    high = _number(entry["high"], f"{where}: high")
    if not low < high:
        raise SpaceError(f"{where}: Expected low < high. Received {low!r} and {high!r}.")
    if entry["distribution"] == "loguniform" and low <= 0:
        raise SpaceError(f"{where}: low: a loguniform needs more than 0. Received {low!r}.")
    if entry["distribution"] == "integer" and (low != int(low) or high != int(high)):
        raise SpaceError(f"{where}: Expected whole bounds. Received {low!r} and {high!r}.")
    return low, high


def _options(entry: Mapping[str, Any], where: str) -> tuple[Option, ...]:
    if entry["distribution"] == "boolean":
        if "options" in entry:
            raise SpaceError(f"{where}: a boolean has no options; use a choice.")
        return Option(value=False), Option(value=True)
    given = entry.get("options")
    if not isinstance(given, list) or len(given) < 2:
        raise SpaceError(f"{where}: options: Expected a list of two or more. Received {given!r}.")
    options = []
    for position, option in enumerate(given):
        place = f"{where}: options[{position}]"
        if not isinstance(option, dict):
            options.append(Option(value=_flag_value(option, place)))
            continue
        _check_keys(option, _OPTION_KEYS, place)
        if "value" not in option:
            raise SpaceError(f"{place}: the key 'value' is missing.")
        options.append(
            Option(
                value=_flag_value(option["value"], f"{place}: value"),
                flags=_flags(option.get("flags", {}), f"{place}: flags"),
                parameters=_parameters(option.get("parameters", []), place),
            )
        )
    values = [(type(option.value) is bool, option.value) for option in options]
    if len(set(values)) < len(values):
        raise SpaceError(f"{where}: two options have the same value.")
    if "flag" not in entry and not any(option.flags or option.parameters for option in options):
        raise SpaceError(f"{where}: a choice without 'flag' needs options that set flags.")
    return tuple(options)


def check(space: Space, source: str) -> None:
    """Checks names and flags: unique on every path, none reserved, every `times` a number's.

    Args:
        space: The space.
        source: What to call it in errors.

    Raises:
        SpaceError: naming the part that is wrong and what was expected.
    """
    if not space.parameters:
        raise SpaceError(f"{source}: Expected at least one parameter.")
    seen = [parameter.name for parameter in space.walk()]
    for name in seen:
        if seen.count(name) > 1:
            raise SpaceError(f"{source}: two parameters are called {name!r}.")
    for flag in RESERVED:
        if flag in set(space.flags) | flags_set(space.parameters):
            raise SpaceError(
                f"{source}: Expected flags other than {', '.join(RESERVED)}: they are the "
                f"search's. Received --{flag}; leave it out."
            )
    _check_path(space.parameters, set(space.flags), _numeric(space.flags), source)


def _check_path(
    parameters: tuple[Parameter, ...], inherited: set[str], factors: set[str], source: str
) -> None:
    """Checks a level; `factors` are the flags that have a number on every path to it."""
    taken = set(inherited)
    factors = factors | {p.flag for p in parameters if p.flag and _gives_number(p)}
    for parameter in parameters:
        ours = flags_set((parameter,))
        for flag in sorted(ours & taken):
            raise SpaceError(f"{source}: {parameter.name} sets --{flag}, which is set already.")
        taken |= ours
    for parameter in parameters:
        if parameter.times and parameter.times not in factors:
            raise SpaceError(
                f"{source}: {parameter.name}: times: Expected a flag that is a number wherever "
                f"{parameter.name} exists, and no product itself. Received --{parameter.times}."
            )
        for option in parameter.options:
            own = {parameter.flag} if parameter.flag else set()
            for flag in sorted(own & set(option.flags)):
                raise SpaceError(f"{source}: {parameter.name} sets --{flag} twice.")
            others = taken - flags_set((parameter,))
            _check_path(
                option.parameters,
                others | own | set(option.flags),
                factors | _numeric(option.flags),
                source,
            )


def _gives_number(parameter: Parameter) -> bool:
    """Whether its flag is a number that is no product."""
    return parameter.times is None and all(is_number(option.value) for option in parameter.options)


def _numeric(flags: Mapping[str, FlagValue]) -> set[str]:
    return {name for name, value in flags.items() if is_number(value)}


def _flags(data: Any, where: str) -> dict[str, FlagValue]:
    _check_type(data, dict, where)
    return {name: _flag_value(value, f"{where}: {name}") for name, value in data.items()}


def _flag_value(value: Any, where: str) -> FlagValue:
    if isinstance(value, float) and not math.isfinite(value):
        raise SpaceError(f"{where}: Expected a finite number. Received {value!r}.")
    if not isinstance(value, bool | int | float | str):
        raise SpaceError(f"{where}: Expected a number, a string or a boolean. Received {value!r}.")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpaceError(f"{where}: Expected a finite number. Received {value!r}.")
    return value


def _check_type(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind):
        names_ = {str: "a string", list: "a list", dict: "a table"}
        raise SpaceError(f"{where}: Expected {names_[kind]}. Received {value!r}.")


def _check_keys(data: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in data:
        if key not in known:
            raise SpaceError(
                f"{where}: unknown key {key!r}. Expected some of {', '.join(sorted(known))}."
            )
