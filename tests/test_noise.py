"""Random numbers that are the same wherever they are drawn."""

import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import noise
from neural_alignment.backend import tensorflow


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
def test_the_same_eagerly_in_a_graph_and_under_xla(draw):
    seed = tf.constant([2**31 - 1, 12345])
    eager = draw((3, 5, 7), seed)
    assert eager.shape == (3, 5, 7)
    for compiled in (False, True):
        function = tf.function(lambda s: draw((3, 5, 7), s), jit_compile=compiled)
        np.testing.assert_allclose(function(seed), eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compiled", [None, False, True], ids=["eager", "graph", "xla"])
@pytest.mark.parametrize("more", range(4))
@pytest.mark.parametrize("numbers", [(-5, 7), (2**31 - 1, -(2**31))])
def test_a_large_draw_has_the_bits_of_tensorflow_s_own(numbers, more, compiled):
    """Large draws are compiled by XLA on a CPU."""
    seed, size = tf.constant(numbers), tensorflow._COMPILED_DRAW + more
    own = tf.random.stateless_uniform((size,), seed, None, None, tf.uint32, alg="philox")
    draw = functools.partial(tensorflow.random_mantissas, size)
    before = tensorflow._compiled_blocks.cache_info()
    if compiled is not None:
        draw = tf.function(draw, jit_compile=compiled)
    large = draw(seed).numpy()
    assert (tensorflow._compiled_blocks.cache_info() == before) == (compiled is True)
    np.testing.assert_array_equal(large, own.numpy() >> 9)
    known_in_the_step = tensorflow.random_mantissas(tf.constant(size), seed)
    np.testing.assert_array_equal(large, known_in_the_step)


def test_a_large_draw_encrypts_every_block_once():
    """Ten rounds of two products; XLA copies what several loops need into each of them."""
    blocks = 20_001
    compiled = tensorflow._compiled_blocks(blocks)
    text = compiled.experimental_get_compiler_ir(tf.constant([1, 2]))(stage="optimized_hlo")
    products = re.findall(rf"= u64\[{blocks}\]\S* multiply\(", text)
    assert 15 < len(products) <= 20  # those of the counter's constant words are scalars


def test_shapes_known_only_in_the_step():
    @tf.function(input_signature=[tf.TensorSpec((None, 3))])
    def function(x):
        return noise.normal(tf.shape(x), tf.constant([1, 2])), noise.normal(
            [tf.shape(x)[0], 3], tf.constant([1, 2])
        )

    for values in function(tf.zeros((5, 3))):
        np.testing.assert_allclose(values, noise.normal((5, 3), tf.constant([1, 2])), rtol=1e-6)


def test_moments():
    uniform = noise.uniform((200, 500), tf.constant([1, 1])).numpy().astype("float64")
    assert uniform.min() >= 0.0
    assert uniform.max() < 1.0
    np.testing.assert_allclose([uniform.mean(), uniform.var()], [0.5, 1 / 12], rtol=0.01)
    normal = noise.normal((200, 500), tf.constant([1, 1])).numpy().astype("float64")
    assert np.all(np.isfinite(normal))
    moments = [(normal**k).mean() for k in range(1, 5)]
    np.testing.assert_allclose(moments, [0.0, 1.0, 0.0, 3.0], atol=0.06)
    # Both halves of a pair, and neighbours, are uncorrelated.
    flat = normal.ravel()
    for other in (np.roll(flat, 1), np.roll(flat, flat.size // 2)):
        assert abs(np.corrcoef(flat, other)[0, 1]) < 0.015


def test_seeds_are_independent():
    seeds = [(0, 0), (0, 1), (1, 0), (1, 1)]
    drawn = np.stack([noise.normal((20_000,), tf.constant(seed)) for seed in seeds])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.03
