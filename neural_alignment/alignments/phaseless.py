"""Phaseless alignment."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

from neural_alignment import backend, noise
from neural_alignment.alignments import equilibrium, primitives
from neural_alignment.alignments.alignment import LayerwiseAlignment, Tensor
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import Coefficient, ProjectionOptions, option
from neural_alignment.alignments.projections import Projections, batch_center, keep
from neural_alignment.alignments.registry import register
from neural_alignment.lazy import keras


class _Noisy(Projections):
    """The projections of an input with noise on it, and the noise.

    Args:
        options: bias and activation of the forward path.
        added: the noise.
        **tensors: of `Projections`; inputs without the noise, a known projection with it.
    """

    def __init__(self, options: ProjectionOptions, added: Tensor, **tensors: Any) -> None:
        super().__init__(options, **tensors | {"inputs": tensors["inputs"] + added})
        self.noise = keep(added, self._mask)

    @cached_property
    def fast(self) -> Tensor:
        """What the noise alone does to the output: the noisy output minus the clean one.

        Made of the noise, as the difference of two outputs would be their rounding in bfloat16.
        """
        through = self.linear.apply(self.noise, self.forward_kernel)
        if not self.options.activation_forward:
            return keep(through, self._output_mask)
        return self._forward - self._activate_forward(self._product - through)

    @cached_property
    def batch_centered(self) -> Tensor:
        """The noisy output minus its mean over the batch."""
        return batch_center(self.forward_projection, self._output_mask)


@register("phaseless")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Phaseless(LayerwiseAlignment):
    """Phaseless alignment (PAL), in discrete time: B learns from noise in the forward pass itself.

    In training a layer's input is `x + xi`, xi normal and new at every step, and W and B learn in
    the same step; in inference there is no noise. With f the output for the noisy input and hp what
    is left of it when the slow part is taken off,

        R = decay_coef * sum B^2 - amp_coef * sum mean_b hp(f) * (xi B)

    Its expected gradient is `2 decay_coef B - amp_coef s^2 W` for noise of deviation s: B tends to
    `amp_coef s^2 / (2 decay_coef) W` and no weight is transported (Max et al. 2023; the network at
    its look-ahead fixed point). The defaults make B of W's size.

    Args:
        decay_coef: of `sum B^2`.
        amp_coef: of the correlation of noise and output; of a convolution the mean over positions.
        noise_stddev: s, above 0.
        high_pass: what is taken off the output: "clean", that for the input without noise, or
            "batch", the mean over the batch, which costs no operation more and leaves more to
            average over.
        use_bias_forward: add the layer's bias to f.
        activation_forward: apply the layer's activation to f.

    Raises:
        ValueError: no noise, or an option out of range.
    """

    decay_coef: Coefficient = option(0.1, "coefficient of the decay primitive")
    amp_coef: Coefficient = option(80.0, "coefficient of the amp primitive")
    noise_stddev: float = option(0.05, "standard deviation of the noise in the forward pass")
    high_pass: str = option(
        "clean", "what is taken off the output before it meets the noise", ("clean", "batch")
    )
    use_bias_forward: bool = option(False, "add the bias to the forward projection")
    activation_forward: bool = option(False, "apply the activation to the forward projection")

    disturbs_input: ClassVar[bool] = True
    loss: ClassVar[str] = "decay_coef·|B|² + amp_coef·amp, of noise in the forward pass"
    sources: ClassVar[tuple[str, ...]] = ("Max et al. 2023",)
    examples: ClassVar[Examples] = {
        "batch": {"high_pass": "batch", "noise_stddev": 0.5, "amp_coef": 0.8},
        "activation": {"activation_forward": True, "use_bias_forward": True, "density": 0.5},
    }

    def __post_init__(self) -> None:
        if isinstance(self.noise_stddev, (int, float)) and not self.noise_stddev > 0.0:
            raise ValueError(
                "Expected noise_stddev > 0, as B learns from the noise alone. "
                f"Received: noise_stddev={self.noise_stddev!r}"
            )
        super().__post_init__()

    @property
    def is_random(self) -> bool:
        return self.has_loss

    @property
    def extra_operations(self) -> int:
        return 1 + (self.high_pass == "clean")

    def doubts(self) -> list[str]:
        return super().doubts() or list(
            equilibrium.doubts(
                ("amp_coef", self.amp_coef),
                ("decay_coef", self.decay_coef),
                self.noise_stddev**2,
                self.update_forward,
            )
        )

    def input_noise(self, inputs: Tensor, seed: Tensor | None) -> Tensor:
        if seed is None:
            raise ValueError(
                "Expected a seed for the noise of the rule 'phaseless'. Received: seed=None. Pass "
                "an int32 tensor [2] that is new at every step."
            )
        drawn = noise.normal(keras.ops.shape(inputs), seed)
        return keras.ops.cast(self.noise_stddev * drawn, inputs.dtype)

    def _projections(self, **tensors: Any) -> Projections:
        options = ProjectionOptions(
            use_bias_forward=self.use_bias_forward, activation_forward=self.activation_forward
        )
        return _Noisy(options, self.input_noise(tensors["inputs"], tensors["seed"]), **tensors)

    def primitives(
        self, p: Projections, variables: Mapping[str, Tensor]
    ) -> dict[str, Callable[[], Tensor]]:
        return {
            "decay": lambda: backend.sum_of_squares(p.backward_kernel),
            "amp": lambda: self._amp(cast(_Noisy, p)),  # as `_projections` makes them
        }

    def _amp(self, p: _Noisy) -> Tensor:
        fast = p.fast if self.high_pass == "clean" else p.batch_centered
        # <hp(f), xi B> = <B, xi^T hp(f)>: no projection of the noise through B.
        correlation = p.linear.kernel_gradient(
            p.noise, p.backward_kernel, fast / primitives.batch_size(fast)
        )
        positions = keras.ops.maximum(keras.ops.cast(p.positions, fast.dtype), 1e-6)
        return -keras.ops.sum(p.backward_kernel * correlation) / positions
