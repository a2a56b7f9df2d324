"""What is TensorFlow's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util  # no public name says what XLA compiles

from neural_alignment.backend import philox
from neural_alignment.backend.common import provide_step  # noqa: F401  (as PyTorch does)
from neural_alignment.backend.contract import BilinearMap, Tie

Tensor = tf.Tensor


def read(variable: Any) -> Tensor:
    """A variable's value, read once.

    `keras.ops.convert_to_tensor` hands the variable on, to be read again at each use, past `after`.

    Args:
        variable: a `keras.Variable` or a tensor.

    Returns:
        A tensor.
    """
    return tf.convert_to_tensor(variable)


def input_gradient(linear: BilinearMap, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
    """`dy K^T`, as the gradient of `apply`; a graph drops the forward value.

    Args:
        linear: the map.
        inputs: x, for its shape only.
        kernel: K.
        upstream: dy.

    Returns:
        A tensor of x's shape.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        outputs = linear.apply(inputs, kernel)
    return tape.gradient(outputs, inputs, upstream)


def kernel_gradient(
    linear: BilinearMap, inputs: Tensor, kernel: Tensor, upstream: Tensor
) -> Tensor:
    """`x^T dy`, as the gradient of `apply`; a graph drops the forward value.

    Args:
        linear: the map.
        inputs: x.
        kernel: for its shape only.
        upstream: dy.

    Returns:
        A tensor of the kernel's shape.
    """
    # A fresh tensor, so that a caller's tape sees no dependency on the kernel's values.
    kernel = tf.stop_gradient(kernel)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(kernel)
        outputs = linear.apply(inputs, kernel)
    return tape.gradient(outputs, kernel, upstream)


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
    inputs, forward_kernel, backward_kernel = (
        tf.convert_to_tensor(t) for t in (inputs, forward_kernel, backward_kernel)
    )

    def gradients(x: Tensor, w: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
        return (
            linear.input_gradient(x, backward_kernel, upstream),
            linear.kernel_gradient(x, w, upstream),
        )

    @tf.custom_gradient
    def tied(x, w, b):
        def gradient(upstream):
            dx, dw = gradients(x, w, upstream)
            return dx, dw, tie_grad(x, upstream, dw) if callable(tie_grad) else dw

        return linear.apply(x, w), gradient

    # The backward kernel is not an argument here: TensorFlow passes arguments through one
    # operation with the result, and the graph optimizer, which then takes the result to depend on
    # the backward kernel's read, drops the order between that read and the kernel's update.
    @tf.custom_gradient
    def untied(x, w):
        return linear.apply(x, w), lambda upstream: gradients(x, w, upstream)

    if tie_grad:
        return tied(inputs, forward_kernel, backward_kernel)
    return untied(inputs, forward_kernel)


def after(inputs: Tensor, reads: Sequence[Tensor]) -> Tensor:
    """The inputs, made to wait until the variables are read.

    A gradient, a tied one or amp's, need not depend on the variable that it updates, and the graph
    optimizer may drop the order between a read and an update; the package's own step has a barrier
    instead.

    Args:
        inputs: x.
        reads: values of the variables.

    Returns:
        x; its gradient goes through as it is.
    """

    # TensorFlow's gradient of an operation with control inputs is zero in the body of a while loop.
    @tf.custom_gradient
    def wait(x):
        with tf.control_dependencies(list(reads)):
            return tf.identity(x), lambda upstream: upstream

    return wait(inputs)


def records_gradients() -> bool:
    """Whether tapes record here; in `tf.recompute_grad`'s forward pass they do not."""
    x = tf.zeros(())
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = tf.identity(x)
    return tape.gradient(y, x) is not None


def sum_of_squares(x: Tensor) -> Tensor:
    """`sum x^2` in one pass, and one more for its gradient.

    Args:
        x: any shape, float.

    Returns:
        A scalar.
    """
    return 2.0 * tf.nn.l2_loss(x)


# So many numbers take XLA a third of the CPU time that they take TensorFlow's own operation, but
# half a second to compile, for each size.
_COMPILED_DRAW = 2**16


def random_mantissas(size: Any, seed: Tensor) -> Tensor:
    """The upper 23 bits of Philox's words.

    Args:
        size: how many, a number or a scalar tensor.
        seed: int32 `[2]`.

    Returns:
        float32 `[size]`, whole numbers in [0, 2^23).
    """
    is_large = isinstance(size, int) and size >= _COMPILED_DRAW
    if is_large and _runs_on_cpus_without_xla():
        blocks = _compiled_blocks(-(-size // 4))(seed)
        return tf.reshape(tf.bitcast(blocks, tf.float32), [-1])[:size]
    return _draw(size, seed)


def _runs_on_cpus_without_xla() -> bool:
    kinds = {device.device_type for device in tf.config.list_logical_devices()}
    graph = ops.get_default_graph()
    return kinds == {"CPU"} and not control_flow_util.GraphOrParentsInXlaContext(graph)


@functools.cache
def _compiled_blocks(count: int) -> Callable[[Tensor], Tensor]:
    return tf.function(functools.partial(_blocks, count), jit_compile=True, autograph=False)


def _blocks(count: int, seed: Tensor) -> Tensor:
    """Philox's blocks of four words in an array of numbers as wide as a block.

    So XLA makes it in one loop. With an array for each word, or by TensorFlow's own operation, it
    encrypts each block four times.
    """
    low = tf.bitcast(seed, tf.uint32)
    high = tf.bitcast(tf.bitwise.right_shift(seed, 31), tf.uint32)  # of the seed as 64 bits
    words = philox.words(
        tf.cast(tf.range(count), tf.uint32),
        [low[0], high[0], low[1], high[1]],
        lambda number: tf.constant(number, tf.uint32),
        philox.unrolled,
        _multiply,
    )
    floats = [_float_bits(word) for word in words]
    halves = [
        tf.bitcast(first | tf.bitwise.left_shift(second, _bits(32)), tf.float64)
        for first, second in (floats[:2], floats[2:])
    ]
    return tf.complex(*halves)


def _bits(number: int) -> Tensor:
    return tf.constant(number, tf.uint64)


def _multiply(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    product = tf.cast(a, tf.uint64) * tf.cast(b, tf.uint64)
    high = tf.bitwise.right_shift(product, _bits(32))
    return tf.cast(high, tf.uint32), tf.cast(product, tf.uint32)


def _mantissa(word: Tensor) -> Tensor:
    upper = tf.bitwise.right_shift(word, tf.constant(9, tf.uint32))
    return tf.cast(tf.bitcast(upper, tf.int32), tf.float32)


def _float_bits(word: Tensor) -> Tensor:
    return tf.cast(tf.bitcast(_mantissa(word), tf.uint32), tf.uint64)


def _draw(size: Any, seed: Tensor) -> Tensor:
    return _mantissa(
        tf.random.stateless_uniform(
            (size,), seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
        )
    )


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
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        value, other = function(tensors)
    return (value, other), tape.gradient(value, tensors)


def momentum_step(
    variable: Any,
    slot: Any,
    gradient: Tensor,
    learning_rate: Any,
    momentum: float,
    nesterov: bool,
) -> None:
    """`v <- m v + g; w <- w - lr (g + m v)` (or `lr v`) in one pass over the weights.

    Args:
        variable: w, updated in place.
        slot: v, updated in place.
        gradient: g.
        learning_rate: lr.
        momentum: m.
        nesterov: look ahead.
    """
    tf.raw_ops.ResourceApplyMomentum(
        var=_handle(variable),
        accum=_handle(slot),
        lr=tf.cast(tf.convert_to_tensor(learning_rate), variable.dtype),
        grad=tf.cast(tf.convert_to_tensor(gradient), variable.dtype),
        momentum=tf.constant(momentum, variable.dtype),
        use_nesterov=nesterov,
    )


def _handle(variable: Any) -> Tensor:
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def replica() -> Any:
    """Number of this replica, from 0."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0


def replica_number() -> int:
    """This replica's number where it is known while tracing, else 0: traced once for all."""
    number = tf.get_static_value(tf.convert_to_tensor(replica()))
    return 0 if number is None else int(number)


class LayerLosses:
    """Lists of a layer's losses, one a replica.

    Keras keeps them in one list, which every replica clears when it begins. Replicas that take
    turns in mid-model, as they do at an update of a noise state, would lose what they have added.
    """

    @property
    def _losses(self) -> list[Tensor]:
        return self._of_this_replica("losses", list)

    @_losses.setter
    def _losses(self, empty: list[Tensor]) -> None:
        pass  # Keras's constructor sets an empty list; each replica's is made when asked for.

    @property
    def _loss_ids(self) -> set[int]:
        return self._of_this_replica("loss_ids", set)

    @_loss_ids.setter
    def _loss_ids(self, empty: set[int]) -> None:
        pass

    def _of_this_replica(self, name: str, make: Callable[[], Any]) -> Any:
        key = name, replica_number()
        return self.__dict__.setdefault("_by_replica", {}).setdefault(key, make())
