"""Rules with the options of a published setting."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings
from typing import Any

from neural_alignment.alignments.alignment import Alignment, AlignmentWarning
from neural_alignment.alignments.registry import rule
from neural_alignment.messages import did_you_mean

_FOLDER = pathlib.Path(__file__).parent.parent / "presets"
# The training script adds the bias to both paths unless a preset says otherwise.
_ON = {"use_bias_forward": "true", "use_bias_backward": "true"}


def from_preset(name: str) -> Alignment | None:
    """The rule of a published setting, for a Keras layer.

    `neural_alignment.from_preset` gives the optimizer, too.

    Args:
        name: of the preset, such as "wm_tpe".

    Returns:
        The rule; None where it is backpropagation.

    Raises:
        ValueError: there is no such preset, or a coefficient is a schedule, which wants to know the
            number of steps.
    """
    known = tuple(sorted(path.stem for path in _FOLDER.glob("*.cfg")))
    if name not in known:
        raise ValueError(
            f"Expected a preset: {', '.join(known)}. Received: {name!r}{did_you_mean(name, known)}."
        )
    lines = (_FOLDER / f"{name}.cfg").read_text(encoding="utf-8").splitlines()
    given = dict(line[2:].split("=", 1) for line in lines if line.startswith("--"))
    if given.get("alignment", "backprop") == "backprop":
        return None
    scheduled = [flag for flag in given if "_coef_" in flag]
    if scheduled:
        raise ValueError(
            f"Expected a preset whose coefficients are numbers. Received: {name!r}, with "
            f"{', '.join(scheduled)}. Call neural_alignment.from_preset({name!r}, steps_per_epoch)."
        )
    cls = rule(given["alignment"])
    options = {
        field.name: _value(field, (_ON | given)[field.name])
        for field in dataclasses.fields(cls)
        if field.name in _ON | given
    }
    with warnings.catch_warnings():
        # Published as it stands.
        warnings.simplefilter("ignore", AlignmentWarning)
        return cls(**options)


def _value(field: dataclasses.Field[Any], text: str) -> Any:
    if text == "none" and field.default is None:
        return None
    if isinstance(field.default, bool):
        return text == "true"
    is_number = field.name.endswith("_coef") or isinstance(field.default, float)
    return float(text) if is_number else text
