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


@register("sign_symmetry")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SignSymmetry(Alignment):
    """Sign symmetry: the backward kernel has the forward kernel's signs, not its magnitudes.

    `B = sign(W) * s` (uniform, uSF), `sign(W) * |M|` with M drawn at every step (batch_random,
    brSF) or once (fixed_random, frSF); `s = sqrt(2 / (fan_in + fan_out))` is the layer's
    Glorot-normal standard deviation, M is normal with it. R = 0 (Liao et al. 2016; [A]; [P] via
    BioTorch).

    Args:
        magnitude: "uniform", "batch_random" or "fixed_random".
        magnitude_scale: s: "glorot", as above, or "kaiming", `1 / sqrt(3 fan_in)` (BioTorch's).
        magnitude_distribution: of M: "normal", or "uniform" of the same deviation, within
            `sqrt(3) s` (BioTorch's).

    Raises:
        ValueError: an option out of range, or a distribution of magnitudes that are not random.
    """

    magnitude: str = option(
        "uniform", "magnitude of the backward kernel", ("uniform", "batch_random", "fixed_random")
    )
    magnitude_scale: str = option("glorot", "size of the magnitude", ("glorot", "kaiming"))
    magnitude_distribution: str = option(
        "normal", "how random magnitudes are drawn", ("normal", "uniform")
    )

    trains_backward_kernel: ClassVar[bool] = False
    backward: ClassVar[str] = "sign(W) times a magnitude ({magnitude})"
    sources: ClassVar[tuple[str, ...]] = ("Liao et al. 2016", "[A]", "[P]")
    examples: ClassVar[Examples] = {
        "batch_random": {"magnitude": "batch_random"},
        "fixed_random": {"magnitude": "fixed_random", "density": 0.5},
        "peers": {
            "magnitude": "batch_random",
            "magnitude_scale": "kaiming",
            "magnitude_distribution": "uniform",
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.magnitude == "uniform" and self.magnitude_distribution != "normal":
            raise ValueError(
                "Expected magnitude='batch_random' or 'fixed_random' with a "
                "magnitude_distribution. Received: magnitude='uniform', "
                f"magnitude_distribution={self.magnitude_distribution!r}"
            )

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
            stddev = self._stddev(linear, kernel_shape)
            if self.magnitude_distribution == "uniform":
                bound = math.sqrt(3.0) * stddev
                drawn = keras.initializers.RandomUniform(-bound, bound)
            else:
                drawn = keras.initializers.RandomNormal(stddev=stddev)
            made["backward_magnitude"] = Variable(kernel_shape, drawn, False)
        return made

    def _stddev(self, linear: Linear, kernel_shape: tuple[int, ...]) -> float:
        fan_in, fan_out = linear.fan_in(kernel_shape), linear.fan_out(kernel_shape)
        if self.magnitude_scale == "kaiming":
            return 1.0 / math.sqrt(3.0 * fan_in)
        return math.sqrt(2.0 / (fan_in + fan_out))

    def backward_kernel(
        self,
        forward_kernel: Tensor,
        variables: Mapping[str, Tensor],
        seed: Tensor | None = None,
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> Tensor:
        stddev = self._stddev(linear, tuple(forward_kernel.shape))
        if self.magnitude == "uniform":
            magnitude = stddev
        elif self.magnitude == "fixed_random":
            magnitude = keras.ops.abs(variables["backward_magnitude"])
        else:
            seed = noise.draw_seed(seed, _MAGNITUDE_DRAW)
            if self.magnitude_distribution == "uniform":
                drawn = math.sqrt(3.0) * noise.uniform(forward_kernel.shape, seed)
            else:
                drawn = noise.normal(forward_kernel.shape, seed)
            magnitude = stddev * keras.ops.abs(drawn)
        # A forward kernel merged with LoRA has the layer's compute dtype.
        magnitude = keras.ops.cast(magnitude, forward_kernel.dtype)
        kernel = keras.ops.stop_gradient(keras.ops.sign(forward_kernel)) * magnitude
        if "backward_mask" not in variables:
            return kernel
        return kernel * keras.ops.cast(variables["backward_mask"], kernel.dtype)
