"""What a rule's class says of itself, for the tables of the pages, the tests and the benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

# Options by a word for them.
Examples = Mapping[str, Mapping[str, Any]]


class Facts:
    """Facts of a rule's class, each with a default; the pages' tables and the tests read them.

    Attributes:
        tied: whether B gets W's gradient, where that is not a yes or a no of the class.
        backward: what B is; `{option}` stands for an option's choices. Default: derived from
            `trains_backward_kernel` and `tie_grad`.
        loss: R in the names of coefficients and primitives. Default: the sum over coefficients.
        sources: where the rule comes from: "[K] D.3", "[A]".
        examples: options by a word for them: variants that the tests run beside the defaults.
    """

    # Of every rule: see `Alignment`.
    tie_grad: ClassVar[bool]
    trains_backward_kernel: ClassVar[bool]
    # Whether it is a rule of a whole model, which `align` gives it, and not of single layers.
    of_model: ClassVar[bool] = False
    # Whether a layer's input has noise on it in training.
    disturbs_input: ClassVar[bool] = False
    tied: ClassVar[str] = ""
    backward: ClassVar[str] = ""
    loss: ClassVar[str] = ""
    sources: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[Examples] = {}

    @property
    def extra_operations(self) -> int:
        """Operations of the layer's size, as `x W` is one, that R adds to a training step."""
        return 0

    @classmethod
    def coefficient_names(cls) -> tuple[str, ...]:
        """The options that are coefficients of R, in order."""
        return ()

    @classmethod
    def backward_in_words(cls) -> str:
        """What B is, in a line."""
        if cls.backward:
            choices = {
                field.name: ", ".join(field.metadata["choices"] or ())
                # Every subclass is a dataclass; this one has no fields.
                for field in dataclasses.fields(cls)  # type: ignore[arg-type]
            }
            return cls.backward.format(**choices)
        trained_by = ["dW"] * cls.tie_grad + ["R"] * bool(cls.coefficient_names())
        if not cls.trains_backward_kernel or not trained_by:
            return "a variable, fixed"
        return f"a variable, trained by {' and '.join(trained_by)}"

    @classmethod
    def tied_in_words(cls) -> str:
        """Whether B gets W's gradient."""
        return cls.tied or ("yes" if cls.tie_grad else "no")

    @classmethod
    def loss_in_words(cls) -> str:
        """R, in a line; 0 for a rule without."""
        terms = (f"{name}·{name.removesuffix('_coef')}" for name in cls.coefficient_names())
        return cls.loss or " + ".join(terms) or "0"
