"""What is JAX's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from neural_alignment.backend import philox
from neural_alignment.backend.common import (  # noqa: F401  (what others do alike)
    LayerLosses,
    after,
    read,
    replica,
    replica_number,
)
from neural_alignment.backend.contract import BilinearMap, Tie

Tensor = Any


def input_gradient(linear: BilinearMap, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
    """`dy K^T`, as the transpose of `apply` in x.

    Args:
        linear: the map.
        inputs: x, for its shape only.
        kernel: K.
        upstream: dy.

    Returns:
        An array of x's shape.
    """
    like = jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)
    (gradient,) = jax.linear_transpose(lambda x: linear.apply(x, kernel), like)(upstream)
    return gradient


def kernel_gradient(
    linear: BilinearMap, inputs: Tensor, kernel: Tensor, upstream: Tensor
) -> Tensor:
    """`x^T dy`, as the transpose of `apply` in K.

    Args:
        linear: the map.
        inputs: x.
        kernel: for its shape only.
        upstream: dy.

    Returns:
        An array of the kernel's shape.
    """
    like = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
    (gradient,) = jax.linear_transpose(lambda k: linear.apply(inputs, k), like)(upstream)
    return gradient


def two_kernels(
    linear: BilinearMap,
    inputs: Tensor,
    forward_kernel: Tensor,
    backward_kernel: Tensor,
    tie_grad: Tie,
) -> Tensor:
    """`y = x W` with `dx = dy B^T`, `dW = x^T dy`, `dB = dW` if tied, else zeros.

    Args:
        linear: the map.
        inputs: x.
        forward_kernel: W.
        backward_kernel: B.
        tie_grad: whether dW flows into B as well; a function of x, dy and dW gives what does.

    Returns:
        y.
    """

    @jax.custom_vjp
    def apply(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        del b
        return linear.apply(x, w)

    def forward(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return linear.apply(x, w), (x, w, b)

    def backward(kept: tuple[Tensor, ...], upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b = kept
        dw = linear.kernel_gradient(x, w, upstream)
        db = tie_grad(x, upstream, dw) if callable(tie_grad) else dw
        return linear.input_gradient(x, b, upstream), dw, db if tie_grad else None

    apply.defvjp(forward, backward)
    return apply(*(jnp.asarray(t) for t in (inputs, forward_kernel, backward_kernel)))


def records_gradients() -> bool:
    """Whether what is computed here can be differentiated: always."""
    return True


def sum_of_squares(x: Tensor) -> Tensor:
    """`sum x^2`.

    Args:
        x: any shape, float.

    Returns:
        A scalar.
    """
    return jnp.sum(jnp.square(x))


def random_mantissas(size: int, seed: Tensor) -> Tensor:
    """The upper 23 bits of Philox's words, equal to TensorFlow's.

    Args:
        size: how many.
        seed: int32 `[2]`.

    Returns:
        float32 `[size]`, whole numbers in [0, 2^23).
    """

    def word(value: int) -> Tensor:
        return jnp.asarray(value, jnp.uint32)

    def rounds(one: Callable[[Any], Any], state: Any) -> Any:
        # In a loop XLA compiles the ten rounds at once on a CPU; a GPU runs them faster unrolled.
        if jax.default_backend() == "cpu":
            return jax.lax.fori_loop(0, philox.ROUNDS, lambda _, s: one(s), state)
        return philox.unrolled(one, state)

    low = jax.lax.bitcast_convert_type(jnp.asarray(seed, jnp.int32), jnp.uint32)
    # As TensorFlow takes int32 seeds to 64 bits: with their sign.
    high = jnp.where(jnp.asarray(seed) < 0, word(0xFFFFFFFF), word(0))
    index = jnp.arange((size + 3) // 4, dtype=jnp.uint32)
    blocks = philox.words(index, [low[0], high[0], low[1], high[1]], word, rounds)
    bits = jnp.stack(blocks, axis=1).reshape(-1)[:size]
    return (bits >> 9).astype(jnp.float32)


def value_and_gradients(
    function: Callable[[Sequence[Tensor]], tuple[Tensor, Any]], tensors: Sequence[Tensor]
) -> tuple[tuple[Tensor, Any], list[Tensor | None]]:
    """A function's value, what else it gives, and its gradients.

    Args:
        function: of the tensors; gives a scalar and anything.
        tensors: float.

    Returns:
        (scalar, anything), and a gradient for each tensor; zeros where the value is free of it.
    """
    tensors = [jnp.asarray(tensor) for tensor in tensors]
    return jax.value_and_grad(function, has_aux=True)(tensors)


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
    gradient = jnp.asarray(gradient, variable.dtype)
    rate = jnp.asarray(read(learning_rate), variable.dtype)
    velocity = momentum * read(slot) + gradient
    slot.assign(velocity)
    variable.assign(
        read(variable) - rate * (gradient + momentum * velocity if nesterov else velocity)
    )


def provide_step(
    model: keras.Model, layers: Sequence[Any], updates: Callable[[Any], Any]
) -> Callable[[], None]:
    """Gives layers the number of updates that the model's optimizer has made.

    The forward pass is a stateless call, which does not see the optimizer's variables; the training
    step hands them to `compute_loss_and_updates`, so that is where the number is taken.

    Args:
        model: compiled.
        layers: with `set_step_source`.
        updates: from an optimizer to that number.

    Returns:
        Takes it away again.
    """
    compute, steps = model.compute_loss_and_updates, []

    def with_step(*args: Any, **kwargs: Any) -> Any:
        variables = kwargs.get("optimizer_variables")
        if variables is None:  # not training
            return compute(*args, **kwargs)
        mapping = list(zip(model.optimizer.variables, variables, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            steps.append(read(updates(model.optimizer)))
        try:
            return compute(*args, **kwargs)
        finally:
            steps.pop()

    def step() -> Tensor:
        if not steps:
            raise ValueError(
                "Expected a layer with a schedule to be called in Keras's training step, that "
                "gives optimizer_variables to compute_loss_and_updates. Received: another call. "
                "Give numbers in place of schedules, or call the layer in "
                "`with neural_alignment.layers.training_step(global_step):`."
            )
        return steps[-1]

    model.compute_loss_and_updates = with_step
    for layer in layers:
        layer.set_step_source(step)

    def undo() -> None:
        del model.compute_loss_and_updates
        for layer in layers:
            layer.set_step_source(None)

    return undo
