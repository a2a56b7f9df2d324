"""Learning rules: how a backward kernel is made, whether its gradient is tied, and a loss."""

from neural_alignment.alignments.activation import Activation
from neural_alignment.alignments.alignment import (
    Alignment,
    LayerwiseAlignment,
    ProjectionAlignment,
    get,
    names,
    register,
    rule,
    serialize,
)
from neural_alignment.alignments.feedback import Feedback
from neural_alignment.alignments.information import Information
from neural_alignment.alignments.kolen_pollack import KolenPollack
from neural_alignment.alignments.mirror import Mirror
from neural_alignment.alignments.product import Product
from neural_alignment.alignments.sign_symmetry import SignSymmetry
from neural_alignment.alignments.symmetric import Symmetric

__all__ = [
    "Activation",
    "Alignment",
    "Feedback",
    "Information",
    "KolenPollack",
    "LayerwiseAlignment",
    "Mirror",
    "Product",
    "ProjectionAlignment",
    "SignSymmetry",
    "Symmetric",
    "get",
    "names",
    "register",
    "rule",
    "serialize",
]
