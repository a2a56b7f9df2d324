"""The transposes of a map on PyTorch, which would make the map's value for each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from neural_alignment.backend.contract import BilinearMap

Tensor = torch.Tensor

# What makes a value, and whether it is a transposed convolution.
_CONVOLUTIONS = {
    torch.conv1d: False,
    torch.conv2d: False,
    torch.conv3d: False,
    torch.conv_transpose1d: True,
    torch.conv_transpose2d: True,
    torch.conv_transpose3d: True,
}


INPUT, KERNEL, VALUE = range(3)


class _Third(torch.autograd.Function):
    """One of x, K and y in `<y, x K>` from the other two: `dy K^T`, `x^T dy`, or `x K`.

    The form is linear in each, so that the gradients are of the same kind, and only those that are
    asked for are made; PyTorch's own for `convolution_backward` makes one more.
    """

    @staticmethod
    def forward(ctx: Any, which: int, settings: Any, *three: Tensor) -> Tensor:
        ctx.which, ctx.settings = which, settings
        ctx.save_for_backward(*three)
        x, kernel, y = three
        if settings is None:
            made = {INPUT: (y, kernel.T), KERNEL: (x.T, y), VALUE: (x, kernel)}[which]
            return torch.matmul(*made)
        if which == VALUE:
            return torch.ops.aten.convolution(x, kernel, None, *settings)
        wanted = (which == INPUT, which == KERNEL, False)
        made = torch.ops.aten.convolution_backward(y, x, kernel, None, *settings, wanted)
        return made[which]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        three = list(ctx.saved_tensors)
        three[ctx.which] = upstream
        gradients = [
            _third(which, ctx.settings, *three) if ctx.needs_input_grad[2 + which] else None
            for which in range(3)
        ]
        return None, None, *gradients


def _third(which: int, settings: Any, *three: Tensor) -> Tensor:
    """One of the three; what is given in its place is for its shape only."""
    given = [one.detach() if i == which else one for i, one in enumerate(three)]
    return _Third.apply(which, settings, *given)


class _Unmade(torch.autograd.Function):
    """Zeros in place of a value that nobody needs, with gradients of that value."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, shape: Sequence[int], wanted: Any, settings: Any
    ) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.wanted, ctx.settings = wanted, settings
        return x.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        three, made = (*ctx.saved_tensors, upstream), [None, None]
        if ctx.wanted == (INPUT, KERNEL) and ctx.settings and not torch.is_grad_enabled():
            x, kernel, y = three  # both in one go
            made = torch.ops.aten.convolution_backward(
                y, x, kernel, None, *ctx.settings, (True, True, False)
            )[:2]
        else:
            for which in ctx.wanted:
                made[which] = _third(which, ctx.settings, *three)
        return *made, None, None, None


class _Unneeded(torch.overrides.TorchFunctionMode):
    """Values of convolutions and matrix products called inside are not made.

    Args:
        wanted: the arguments whose gradients are asked for.
    """

    def __init__(self, wanted: tuple[int, ...]) -> None:
        super().__init__()
        self._wanted = wanted

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Tensor:
        kwargs = kwargs or {}
        if function is torch.matmul and [one.ndim for one in args] == [2, 2]:
            x, kernel = args
            shape, settings = (len(x), kernel.shape[1]), None
        elif function in _CONVOLUTIONS and not isinstance(kwargs.get("padding"), str):
            x, kernel = args
            shape = function(x.to("meta"), kernel.to("meta"), **kwargs).shape
            settings = _settings(_CONVOLUTIONS[function], x.ndim - 2, kwargs)
        else:
            return function(*args, **kwargs)
        return _Unmade.apply(x, kernel, shape, self._wanted, settings)


def _settings(transposed: bool, axes: int, given: dict[str, Any]) -> list[Any]:
    """The arguments of PyTorch's operation for every convolution, from those of one of its six."""

    def numbers(name: str, default: int) -> list[int]:
        value = given.get(name, default)
        return [value] * axes if isinstance(value, int) else list(value)

    return [
        numbers("stride", 1),
        numbers("padding", 0),
        numbers("dilation", 1),
        transposed,
        numbers("output_padding", 0),
        given.get("groups", 1),
    ]


def gradients(
    linear: BilinearMap, inputs: Tensor, kernel: Tensor, upstream: Tensor, *wanted: int
) -> tuple[Tensor, ...]:
    """Gradients of `apply`, whose value is not made for them.

    Args:
        linear: the map.
        inputs: x.
        kernel: K.
        upstream: dy.
        wanted: `INPUT`, `KERNEL`, or both in this order.

    Returns:
        A tensor of the shape of x or K for each; x or K itself is for its shape only where a
        gradient is asked for alone.
    """
    differentiable = torch.is_grad_enabled()
    # What compiles the step drops the value by itself.
    unneeded = contextlib.nullcontext() if torch.compiler.is_compiling() else _Unneeded(wanted)
    given = [inputs, kernel]
    for which in wanted:
        given[which] = given[which].detach().requires_grad_()
    with torch.enable_grad():
        with unneeded:
            outputs = linear.apply(*given)
        of = [given[which] for which in wanted]
        return torch.autograd.grad(outputs, of, upstream, create_graph=differentiable)
