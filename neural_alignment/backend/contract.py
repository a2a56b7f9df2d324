"""What the back ends ask of a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Tensor = Any

# Whether B's gradient is W's; or what it is, of x, dy and dW.
Tie = bool | Callable[[Tensor, Tensor, Tensor], Tensor]


class BilinearMap(Protocol):
    """A map that is linear in its input and in its kernel: a matmul, a convolution."""

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """`y = x K`."""

    def input_gradient(self, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
        """`dy K^T`, of the shape of `inputs`."""

    def kernel_gradient(self, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
        """`x^T dy`, of the shape of `kernel`."""
