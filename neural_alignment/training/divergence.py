"""Losses and weights that are NaN or infinite: what to say, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from neural_alignment.training.step import Step


class DivergenceError(RuntimeError):
    """A loss or a weight that is NaN or infinite."""


def advice(step: Step, wrong: Sequence[str]) -> str:
    """What a person can do about losses that are not finite.

    Args:
        step: of the two losses.
        wrong: those of `step.measured` that are NaN or infinite.

    Returns:
        A sentence that fits the losses and the optimizers there are.
    """
    clip = "" if step.clips else ", or clip gradients (--grad_clip)"
    if not step.has_alignment_loss:
        return f"Lower --learning_rate{clip}."
    if wrong and "loss" not in wrong:  # J held: it is R alone that grew
        what = "--alignment_learning_rate" if len(step.optimizers) == 2 else "--alignment_rate"
        return f"The alignment loss diverged, and the loss did not: lower {what}{clip}."
    if len(step.optimizers) == 2:
        return (
            "Lower --learning_rate against --alignment_learning_rate, so that B keeps up with W"
            f"{clip}."
        )
    return (
        "Lower --learning_rate, or give the alignment loss an optimizer of its own "
        f"(--alignment_optimizer) that B keeps up with{clip}."
    )
