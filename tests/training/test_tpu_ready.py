"""What a TPU needs of a step, checked without one: XLA, static shapes, nothing on the host."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, models, optimizers
from neural_alignment.layers import Conv2D, Dense
from neural_alignment.layers.aligned import aligned_layers
from neural_alignment.models.normalization import BatchNormalization
from neural_alignment.optimizers import rate_scheduler
from neural_alignment.optimizers.optimizers import Clip
from neural_alignment.training.step import Step
from tests.training import children

BATCH = 4
NOISE = {"input_distribution": "normal", "input_stddev": 1.0}
EVERYTHING = {
    "batch_center_backward_input": True,
    "normalize_input": True,
    "activation_forward": True,
    "use_bias_forward": True,
    "normalize_backward_output": True,
    "batch_center_forward_output": True,
}
# Every rule as it is, and with what adds most to its step.
RULES = {name: alignments.rule(name)() for name in alignments.layer_names()}
RULES |= {
    f"{name}, everything": alignments.rule(name)(**NOISE, **EVERYTHING)
    for name in ("activation", "mirror", "information")
}
RULES["sign_symmetry, drawn at every step"] = alignments.rule("sign_symmetry")(
    magnitude="batch_random"
)
RULES["backprop"] = None
LARGEST = "information, everything"
QUICK = ("symmetric", "mirror", "product", "direct", "phaseless", "mixed", "backprop")

# Operations of HLO that move data between device and host.
_HOST = re.compile(r"\s(infeed|outfeed|send|recv|send-done|recv-done|custom-call)\(")


@pytest.fixture(autouse=True)
def _strict_placement():
    before = tf.config.get_soft_device_placement()
    tf.config.set_soft_device_placement(False)
    yield
    tf.config.set_soft_device_placement(before)
    keras.config.set_dtype_policy("float32")


def small(rule):
    """A network with a convolution, BatchNorm and a Dense layer."""
    x = inputs = keras.Input((6, 6, 3))
    x = Conv2D(4, 3, strides=2, padding="same", use_bias=False, alignment=rule)(x)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    x = keras.layers.Flatten()(x)
    logits = Dense(10, alignment=rule, dtype="float32", kernel_regularizer="l2")(x)
    return keras.Model(inputs, logits)


def one_step(model, micro_batches=1):
    """The whole replica step, with two optimizers where there are two losses, and its arguments."""
    two = any(layer.alignment.has_loss for layer in aligned_layers(model))
    rate = {"steps_per_epoch": 10, "delay_epochs": 0.0, "alternate_step_freq": 1 if two else None}
    step = Step(
        model,
        optimizers.get("momentum", learning_rate=0.01),
        optimizers.get("adam", learning_rate=0.001) if two else None,
        rate_scheduler.LossRate(**rate),
        rate_scheduler.AlignmentRate(**rate),
        clip=Clip("norm", 1.0),
        micro_batches=micro_batches,
    )
    images = tf.constant(np.random.default_rng(0).random((BATCH, *model.input_shape[1:]), "f4"))
    labels = tf.constant(np.arange(BATCH), "int32")
    compiled = tf.function(step.__call__, jit_compile=True, autograph=False)
    return compiled, (images, labels, tf.constant(3, "int64"))


def check_hlo(compiled, arguments):
    hlo = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")
    assert "ENTRY" in hlo and "convolution(" in hlo
    assert "<=" not in hlo, "a dynamic dimension"
    assert not _HOST.search(hlo), _HOST.search(hlo)
    assert "callback" not in hlo.lower()


def check_run(compiled, arguments, model):
    before = [np.asarray(v) for v in model.trainable_variables]
    measured = compiled(*arguments)
    after = [np.asarray(v) for v in model.trainable_variables]
    assert np.isfinite(measured).all()
    assert all(np.isfinite(value).all() for value in after)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        # What R adds to a step is in these; the others are slow tests.
        pytest.param(name, marks=() if name in (*QUICK, LARGEST) else pytest.mark.slow)
        for name in RULES
    ],
)
def test_every_rule(name):
    model = small(RULES[name])
    compiled, arguments = one_step(model)
    check_hlo(compiled, arguments)
    check_run(compiled, arguments, model)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("product", LARGEST) else pytest.mark.slow)
        for name in RULES
    ],
)
def test_every_rule_in_bfloat16(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = small(RULES[name])
    check_run(*one_step(model), model)


def test_micro_batches():
    check_hlo(*one_step(small(RULES["mirror"]), micro_batches=2))


def test_checks_see_what_a_tpu_refuses():
    @tf.function(jit_compile=True)
    def dynamic(images, labels, step):
        return tf.boolean_mask(images, labels > 0)

    model = small(None)
    _, arguments = one_step(model)
    hlo = dynamic.experimental_get_compiler_ir(*arguments)(stage="hlo")
    assert "<=" in hlo
    assert _HOST.search("%x = f32[2]{0} custom-call(f32[2]{0} %y)")
    assert _HOST.search("  %s = (f32[], token[]) infeed(token[] %t)")


def resnet(version, rule):
    suffix = "_v2" if version == 2 else ""
    return models.get(f"resnet18{suffix}", input_shape=(32, 32, 3), num_classes=10, alignment=rule)


@pytest.mark.parametrize("version", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_resnet18_with_one_rule(version):
    compiled, arguments = one_step(resnet(version, RULES["symmetric"]))
    check_hlo(compiled, arguments)


def whole_check(version, name, policy):
    """What XLA keeps of a ResNet-18 is more than a gigabyte: for a process of its own."""
    keras.config.set_dtype_policy(policy)
    model = resnet(version, RULES[name])
    compiled, arguments = one_step(model)
    check_hlo(compiled, arguments)
    check_run(compiled, arguments, model)


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", RULES)
def test_resnet18_with_every_rule(version, name):
    children.apart(whole_check, version, name, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_resnet18_in_bfloat16(version):
    children.apart(whole_check, version, "mirror, everything", "mixed_bfloat16")
