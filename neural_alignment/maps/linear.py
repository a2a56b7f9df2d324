"""What every map has: linear in its input and in its kernel, two transposes, a geometry."""

from __future__ import annotations

import abc
import math
from typing import Any

from neural_alignment import backend
from neural_alignment.lazy import keras

Tensor = Any
Shape = tuple[int, ...]


class Linear(abc.ABC):
    """A map that is linear in its input and in its kernel, its two transposes and its geometry.

    The transposes are taken as gradients of `apply`, so they hold for whatever `apply` does. A
    learning rule asks the map what the kernel's axes are: `outputs_last` turns a kernel so that its
    last axis counts the outputs and every other one is an input's or the window's. By default a
    kernel is so already.
    """

    @abc.abstractmethod
    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """`y = x K`.

        Args:
            inputs: x.
            kernel: K.

        Returns:
            y.
        """

    def input_gradient(self, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
        """`dy K^T`.

        Args:
            inputs: x, for its shape only.
            kernel: K.
            upstream: dy, of the shape of `apply(inputs, kernel)`.

        Returns:
            A tensor of x's shape.
        """
        return backend.input_gradient(self, inputs, kernel, upstream)

    def kernel_gradient(self, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
        """`x^T dy`.

        Args:
            inputs: x.
            kernel: for its shape only.
            upstream: dy, of the shape of `apply(inputs, kernel)`.

        Returns:
            A tensor of the kernel's shape.
        """
        return backend.kernel_gradient(self, inputs, kernel, upstream)

    def outputs_last(self, kernel: Tensor) -> Tensor:
        """The kernel turned so that an output is a column.

        Args:
            kernel: K.

        Returns:
            `[*window, inputs, outputs]`.
        """
        return kernel

    def from_outputs_last(self, turned: Tensor, kernel_shape: Shape) -> Tensor:
        """The inverse of `outputs_last`.

        Args:
            turned: `[*window, inputs, outputs]`.
            kernel_shape: K's shape.

        Returns:
            A tensor of K's shape.
        """
        del kernel_shape
        return turned

    def outputs_last_shape(self, kernel_shape: Shape) -> Shape:
        """The shape of `outputs_last(kernel)`.

        Args:
            kernel_shape: K's shape.

        Returns:
            `(*window, inputs, outputs)`.
        """
        return tuple(kernel_shape)

    def outputs(self, kernel_shape: Shape) -> int:
        """Number of outputs at one position: units, filters.

        Args:
            kernel_shape: K's shape.

        Returns:
            The number.
        """
        return self.outputs_last_shape(kernel_shape)[-1]

    def output_axis(self, inputs: Tensor, kernel_shape: Shape) -> int | None:
        """The axis of `apply(x, K)` that counts the outputs, where all of them see the same inputs.

        There `x^T (dy G)` is `(x^T dy) G` for every G `[outputs, outputs]`.

        Args:
            inputs: x, for its shape.
            kernel_shape: K's shape.

        Returns:
            An axis; None where the outputs fall into groups, or are on several axes.
        """
        del inputs, kernel_shape
        return None

    @property
    def units_axis(self) -> int | None:
        """The axis of `apply(x, K)` that counts the outputs in the order of `outputs_last`.

        Returns:
            An axis; None where they are on several.
        """
        return None

    def fan_in(self, kernel_shape: Shape) -> int:
        """Number of inputs that one output sums over.

        Args:
            kernel_shape: K's shape.

        Returns:
            The number.
        """
        return math.prod(self.outputs_last_shape(kernel_shape)[:-1])

    def fan_out(self, kernel_shape: Shape) -> int:
        """Number of outputs that the window of one input reaches.

        Args:
            kernel_shape: K's shape.

        Returns:
            The number.
        """
        *window, _, outputs = self.outputs_last_shape(kernel_shape)
        return math.prod(window) * outputs

    def positions(self, inputs: Tensor, outputs: Tensor, kernel_shape: Shape) -> Any:
        """How many pairs of an input's and an output's position one weight connects.

        Args:
            inputs: x, for its shape.
            outputs: `apply(x, K)`, for its shape.
            kernel_shape: K's shape.

        Returns:
            A number, or a scalar tensor where sizes are dynamic.
        """
        del inputs
        return math.prod(keras.ops.shape(outputs)[1:]) / self.outputs(kernel_shape)

    def mask_of_outputs(self, mask: Tensor | None) -> Tensor | None:
        """The mask of the outputs.

        Args:
            mask: bool, the leading axes of the inputs, or None.

        Returns:
            The mask of the outputs' leading axes; None where there is none.
        """
        del mask
        return None
