"""What is PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from neural_alignment.backend import philox, torch_transposes
from neural_alignment.backend.common import (  # noqa: F401  (what others do alike)
    LayerLosses,
    after,
    provide_step,
    read,
    replica,
    replica_number,
)
from neural_alignment.backend.contract import BilinearMap, Tie
from neural_alignment.backend.torch_transposes import INPUT, KERNEL

Tensor = torch.Tensor


def input_gradient(linear: BilinearMap, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
    """`dy K^T`, as the gradient of `apply`.

    Args:
        linear: the map.
        inputs: x, for its shape only.
        kernel: K.
        upstream: dy.

    Returns:
        A tensor of x's shape.
    """
    return torch_transposes.gradients(linear, inputs, kernel, upstream, INPUT)[0]


def kernel_gradient(
    linear: BilinearMap, inputs: Tensor, kernel: Tensor, upstream: Tensor
) -> Tensor:
    """`x^T dy`, as the gradient of `apply`.

    Args:
        linear: the map.
        inputs: x.
        kernel: for its shape only.
        upstream: dy.

    Returns:
        A tensor of the kernel's shape.
    """
    return torch_transposes.gradients(linear, inputs, kernel, upstream, KERNEL)[0]


class _TwoKernels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor, linear: BilinearMap, tie_grad: Tie
    ) -> Tensor:
        ctx.save_for_backward(x, w, b)
        ctx.linear, ctx.tie_grad = linear, tie_grad
        return linear.apply(x, w)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b = ctx.saved_tensors
        of_x, of_w, of_b = ctx.needs_input_grad[:3]
        tied = ctx.tie_grad and of_b
        if of_x and (of_w or tied) and w.shape == b.shape and not torch.is_grad_enabled():
            # dW does not depend on the kernel's values: both from one call.
            dx, dw = torch_transposes.gradients(ctx.linear, x, b, upstream, INPUT, KERNEL)
        else:
            dx = ctx.linear.input_gradient(x, b, upstream) if of_x else None
            dw = ctx.linear.kernel_gradient(x, w, upstream) if of_w or tied else None
        db = ctx.tie_grad(x, upstream, dw) if tied and callable(ctx.tie_grad) else dw
        return dx, dw if of_w else None, db if tied else None, None, None


def two_kernels(
    linear: BilinearMap,
    inputs: Tensor,
    forward_kernel: Tensor,
    backward_kernel: Tensor,
    tie_grad: Tie,
) -> Tensor:
    """`y = x W` with `dx = dy B^T`, `dW = x^T dy`, `dB = dW` if tied, else None.

    Args:
        linear: the map.
        inputs: x.
        forward_kernel: W.
        backward_kernel: B.
        tie_grad: whether dW flows into B as well; a function of x, dy and dW gives what does.

    Returns:
        y.
    """
    tensors = (read(t) for t in (inputs, forward_kernel, backward_kernel))
    return _TwoKernels.apply(*tensors, linear, tie_grad)


def records_gradients() -> bool:
    """Whether what is computed here can be differentiated, as far as PyTorch says.

    A training step has gradients on; inside a checkpoint's first pass they are off, and its second
    pass adds R again, to no one.
    """
    return True


def sum_of_squares(x: Tensor) -> Tensor:
    """`sum x^2`.

    Args:
        x: any shape, float.

    Returns:
        A scalar.
    """
    return torch.sum(torch.square(x))


def random_mantissas(size: int, seed: Tensor) -> Tensor:
    """The upper 23 bits of Philox's words, equal to TensorFlow's.

    Args:
        size: how many.
        seed: int32 `[2]`.

    Returns:
        float32 `[size]`, whole numbers in [0, 2^23).
    """
    device = seed.device

    def rounds(one: Callable[[Any], Any], state: Any) -> Any:
        for _ in range(philox.ROUNDS):
            state = tuple(value & _WORD for value in one(state))
        return state

    wide = seed.to(torch.int64)
    # A shift keeps the sign, as TensorFlow takes int32 seeds to 64 bits.
    parts = [wide[0] & _WORD, (wide[0] >> 32) & _WORD, wide[1] & _WORD, (wide[1] >> 32) & _WORD]
    index = torch.arange((size + 3) // 4, dtype=torch.int64, device=device)
    blocks = philox.words(
        index, parts, lambda value: torch.tensor(value, dtype=torch.int64, device=device), rounds
    )
    bits = torch.stack(blocks, dim=1).reshape(-1)[:size]
    return (bits >> 9).to(torch.float32)


# PyTorch has few operations on unsigned 32-bit numbers: words are the lower half of 64-bit ones.
_WORD = 0xFFFFFFFF


def value_and_gradients(
    function: Callable[[Sequence[Tensor]], tuple[Tensor, Any]], tensors: Sequence[Tensor]
) -> tuple[tuple[Tensor, Any], list[Tensor | None]]:
    """A function's value, what else it gives, and its gradients.

    Args:
        function: of the tensors; gives a scalar and anything.
        tensors: float.

    Returns:
        (scalar, anything), and a gradient for each tensor; None where the value is free of it.
    """
    with torch.enable_grad():
        leaves = [read(tensor).detach().requires_grad_() for tensor in tensors]
        value, other = function(leaves)
        gradients = [None] * len(leaves)
        if value.requires_grad:
            gradients = list(torch.autograd.grad(value, leaves, allow_unused=True))
    return (value.detach(), other), gradients


def momentum_step(
    variable: Any,
    slot: Any,
    gradient: Tensor,
    learning_rate: Any,
    momentum: float,
    nesterov: bool,
) -> None:
    """`v <- m v + g; w <- w - lr (g + m v)` (or `lr v`).

    Args:
        variable: w, updated in place.
        slot: v, updated in place.
        gradient: g.
        learning_rate: lr.
        momentum: m.
        nesterov: look ahead.
    """
    velocity, weight = read(slot), read(variable)
    rate = read(learning_rate).to(weight.dtype)
    with torch.no_grad():
        velocity.mul_(momentum).add_(gradient)
        step = torch.add(gradient, velocity, alpha=momentum) if nesterov else velocity
        weight.sub_(rate * step)
