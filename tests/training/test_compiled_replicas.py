"""What each of two devices compiles: forward and backward pass, and no word with anybody."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, optimizers
from neural_alignment.layers import Conv2D, Dense
from neural_alignment.models.normalization import BatchNormalization
from neural_alignment.training.step import Step

# Operations of HLO that move data between device and host, and between devices.
_HOST = re.compile(r"\s(infeed|outfeed|send|recv|send-done|recv-done|custom-call)\(")
_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|all-to-all|reduce-scatter|collective-(permute|broadcast))"
    r"(-start|-done)?\("
)
RULES = [None, *alignments.layer_names()]
# Quick with Keras's BatchNormalization, and with ours; the others are slow tests.
QUICK = {False: ("symmetric",), True: (None, "mirror", "product", "direct")}


def network(rule, normalization):
    x = inputs = keras.Input((6, 6, 3))
    x = Conv2D(4, 3, padding="same", alignment=rule)(x)
    x = keras.layers.ReLU()(normalization(x))
    return keras.Model(inputs, Dense(10, alignment=rule)(keras.layers.Flatten()(x)))


def compiled_by_each(rule, normalization):
    """The HLO that each of two replicas compiles, and the moving means after the step."""
    # TensorFlow's collectives keep the shapes of a process's first strategy.
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        norm = normalization()
        model = network(rule and alignments.rule(rule)(), norm)
        rate = lambda step: 1.0  # noqa: E731
        step = Step(model, optimizers.get("gd"), None, rate, rate, jit_compile=True)
    images = tf.constant(np.random.default_rng(0).random((2, 4, 6, 6, 3)), "float32")
    labels, now = tf.constant([0, 1, 2, 3]), tf.constant(0, "int64")
    texts = []

    def arguments():
        return images[tf.distribute.get_replica_context().replica_id_in_sync_group], labels, now

    def compiled():
        texts.append(step._compute.experimental_get_compiler_ir(*arguments())(stage="hlo"))

    strategy.run(compiled)
    run = tf.function(lambda: strategy.run(lambda: step(*arguments())))
    losses = strategy.experimental_local_results(run())
    return texts, losses, strategy.experimental_local_results(norm.moving_mean.value)


@pytest.mark.parametrize(
    ("rule", "normalization"),
    [
        pytest.param(
            rule,
            normalization,
            # XLA compiles for seconds a case.
            marks=() if rule in QUICK[normalization is ours] else pytest.mark.slow,
        )
        for rule in RULES
        for ours in [BatchNormalization]
        for normalization in (keras.layers.BatchNormalization, ours)
    ],
)
def test_nothing_is_exchanged_within(rule, normalization):
    texts, losses, means = compiled_by_each(rule, normalization)
    assert len(texts) == 2
    for text in texts:
        assert "ENTRY" in text and "convolution(" in text
        assert not _HOST.search(text), _HOST.search(text)
        assert not _COLLECTIVE.search(text), _COLLECTIVE.search(text)
    assert np.isfinite(losses).all()
    # What is exchanged comes after: statistics are equal though the images are not.
    np.testing.assert_array_equal(means[0], means[1])
    assert np.abs(losses[0][0] - losses[1][0]) > 0


def test_the_check_sees_what_is_exchanged():
    assert _COLLECTIVE.search("%r = f32[4]{0} all-reduce(f32[4]{0} %x), replica_groups={}")
    assert _COLLECTIVE.search("%r = (f32[4]{0}) all-gather-start(f32[4]{0} %x)")
    assert _HOST.search("%x = f32[2]{0} custom-call(f32[2]{0} %y)")
