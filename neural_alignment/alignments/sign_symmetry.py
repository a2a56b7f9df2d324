"""Sign symmetry."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from neural_alignment import noise
from neural_alignment.alignments.alignment import OUTPUTS_LAST, Alignment, Tensor, Variable
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import option
from neural_alignment.alignments.registry import register
from neural_alignment.lazy import keras
from neural_alignment.maps import Linear

_MAGNITUDE_DRAW = 1


def _glorot_stddev(linear: Linear, kernel_shape: tuple[int, ...]) -> float:
    return math.sqrt(2.0 / (linear.fan_in(kernel_shape) + linear.fan_out(kernel_shape)))


@register("sign_symmetry")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SignSymmetry(Alignment):
    """Sign symmetry: the backward kernel has the forward kernel's signs, not its magnitudes.

    `B = sign(W) * s` (uniform, uSF), `sign(W) * |M|` with M drawn at every step (batch_random,
    brSF) or once (fixed_random, frSF); `s = sqrt(2 / (fan_in + fan_out))` is the layer's
    Glorot-normal standard deviation, M is normal with it. R = 0 ([A]; [P] via BioTorch).

    Args:
        magnitude: "uniform", "batch_random" or "fixed_random".
    """

    magnitude: str = option(
        "uniform", "magnitude of the backward kernel", ("uniform", "batch_random", "fixed_random")
    )

    trains_backward_kernel: ClassVar[bool] = False
    backward: ClassVar[str] = "sign(W) times a magnitude ({magnitude})"
    sources: ClassVar[tuple[str, ...]] = ("[A]", "[P]")
    examples: ClassVar[Examples] = {
        "batch_random": {"magnitude": "batch_random"},
        "fixed_random": {"magnitude": "fixed_random", "density": 0.5},
    }

    @property
    def is_random(self) -> bool:
        return self.magnitude == "batch_random"

    def variables(
        self,
        kernel_shape: tuple[int, ...],
        initializer: Callable[[str], Any],
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> dict[str, Variable]:
        made = self._mask("backward_mask", kernel_shape)
        if self.magnitude == "fixed_random":
            normal = keras.initializers.RandomNormal(stddev=_glorot_stddev(linear, kernel_shape))
            made["backward_magnitude"] = Variable(kernel_shape, normal, False)
        return made

    def backward_kernel(
        self,
        forward_kernel: Tensor,
        variables: Mapping[str, Tensor],
        seed: Tensor | None = None,
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> Tensor:
        stddev = _glorot_stddev(linear, tuple(forward_kernel.shape))
        if self.magnitude == "uniform":
            magnitude = stddev
        elif self.magnitude == "fixed_random":
            magnitude = keras.ops.abs(variables["backward_magnitude"])
        else:
            drawn = noise.normal(forward_kernel.shape, noise.draw_seed(seed, _MAGNITUDE_DRAW))
            magnitude = stddev * keras.ops.abs(drawn)
        # A forward kernel merged with LoRA has the layer's compute dtype.
        magnitude = keras.ops.cast(magnitude, forward_kernel.dtype)
        kernel = keras.ops.stop_gradient(keras.ops.sign(forward_kernel)) * magnitude
        if "backward_mask" not in variables:
            return kernel
        return kernel * keras.ops.cast(variables["backward_mask"], kernel.dtype)
