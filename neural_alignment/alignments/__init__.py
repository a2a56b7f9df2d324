"""Learning rules: how a backward kernel is made, whether its gradient is tied, and a loss.

Every module here is imported, which registers its rule: a new rule is one new file. The rules'
classes are attributes of this package: `alignments.Symmetric`, `alignments.Mirror`, ...
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from neural_alignment.alignments.alignment import (
    Alignment,
    AlignmentWarning,
    LayerwiseAlignment,
)
from neural_alignment.alignments.options import Coefficient, ProjectionOptions, option
from neural_alignment.alignments.projecting import ProjectionAlignment
from neural_alignment.alignments.published import from_preset
from neural_alignment.alignments.registry import get, layer_names, names, register, rule, serialize

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

_RULES = {rule(name).__name__: rule(name) for name in names()}
globals().update(_RULES)

if TYPE_CHECKING:  # the rules' classes are found when this is imported, and by no checker

    def __getattr__(name: str) -> Any: ...


__all__ = [  # noqa: PLE0604
    "Alignment",
    "AlignmentWarning",
    "Coefficient",
    "LayerwiseAlignment",
    "ProjectionAlignment",
    "ProjectionOptions",
    "from_preset",
    "get",
    "layer_names",
    "names",
    "option",
    "register",
    "rule",
    "serialize",
    *_RULES,
]
