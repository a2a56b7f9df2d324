"""Settings that cannot align are warned of once, with what they need; and R's minima are right."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, config
from neural_alignment.maps import Conv, Matmul
from neural_alignment.optimizers import rate_scheduler
from neural_alignment.training import build
from tests.layers.conformance import EVERY, draw, rule
from tests.presets.support import check_doubts, parse

SCHEDULE = rate_scheduler.Coefficient(value=0.0, steps_per_epoch=10, train_epochs=2.0)

# Rule, options, what the message says that they need.
DOUBTFUL = [
    ("phaseless", {"noise_stddev": 1e-4}, "amp_coef near 2e+07"),
    ("symmetric", {"self_coef": 0.0}, "Expected self_coef > 0"),
    ("symmetric", {"self_coef": -1.0}, "towards -W"),
    ("symmetric", {"decay_coef": 0.0}, "Expected decay_coef > 0"),
    ("symmetric", {"decay_coef": 1e4, "self_coef": 1.0}, "self_coef near 2e+04"),
    ("symmetric", {"decay_coef": 1e-4, "self_coef": 1.0}, "errors explode"),
    ("symmetric", {"decay_coef": 0.0, "self_coef": 0.0}, "stays as drawn"),
    ("symmetric", {"self_coef": 50.0, "update_forward": True}, "both kernels grow"),
    ("activation", {"amp_coef": 0.0}, "Expected amp_coef > 0"),
    ("activation", {"sparse_coef": -0.1}, "Expected sparse_coef > 0"),
    ("activation", {"sparse_coef": 50.0}, "hardly any error"),
    ("activation", {"input_distribution": "uniform", "input_stddev": 0.0}, "input_stddev > 0"),
    ("activation", {"amp_coef": 1.0, "update_forward": True}, "both kernels grow"),
    ("mirror", {"amp_coef": 0.0}, "Expected amp_coef > 0"),
    ("mirror", {"amp_coef": -0.1, "input_distribution": None}, "towards -W"),
    ("mirror", {"decay_coef": 0.0}, "grows without bound"),
    ("mirror", {"decay_coef": 0.0, "input_distribution": None}, "grows without bound"),
    ("mirror", {"decay_coef": 11.0}, "amp_coef near 22"),
    ("mirror", {"input_stddev": 0.05}, "amp_coef near 80"),
    ("mirror", {"input_stddev": 0.0}, "input_stddev > 0"),
    ("mirror", {"decay_coef": 1e-4}, "errors explode"),
    ("mirror", {"input_stddev": 2.0, "update_forward": True}, "at most 0.05"),
    ("information", {"amp_coef": 0.0}, "Expected amp_coef > 0"),
    ("information", {"decay_coef": 0.0}, "Expected decay_coef > 0"),
    ("information", {"null_coef": -1e-3}, "Expected null_coef >= 0"),
    ("information", {"decay_coef": 20.0}, "hardly any error"),
    ("information", {"input_stddev": 0.0}, "input_stddev > 0"),
    (
        "information",
        {"null_coef": 0.0, "amp_coef": 1.0, "update_forward": True},
        "both kernels grow",
    ),
    ("kolen_pollack", {"decay_coef": 0.0}, "Expected decay_coef > 0"),
    ("kolen_pollack", {"decay_coef": -1.0}, "grows"),
    ("phaseless", {"amp_coef": 0.0}, "Expected amp_coef > 0"),
    ("phaseless", {"decay_coef": 0.0}, "grows without bound"),
    ("product", {"decay_coef": 0.0}, "Expected decay_coef > 0"),
]


@pytest.mark.parametrize(("name", "options", "needs"), DOUBTFUL, ids=str)
def test_what_cannot_align_is_warned_of(name, options, needs):
    with pytest.warns(alignments.AlignmentWarning) as seen:
        alignments.get({"name": name, **options})
    (message,) = (str(one.message) for one in seen)
    assert needs in message and message.startswith(f"{alignments.rule(name).__name__}: ")


@pytest.mark.parametrize("name", sorted({name for name, *_ in DOUBTFUL}))
def test_cases_are_of_rules_with_doubts_of_their_own(name):
    assert "doubts" in vars(alignments.rule(name))


@pytest.mark.parametrize("name", alignments.names())
def test_a_loss_without_coefficients_is_warned_of(name):
    """Every rule with a loss, known here or not."""
    zeros = dict.fromkeys(alignments.rule(name).coefficient_names(), 0.0)
    if zeros:
        with pytest.warns(alignments.AlignmentWarning, match="Expected .*_coef|coefficients"):
            alignments.get({"name": name, **zeros})


SOUND = [
    *(("symmetric", {name: SCHEDULE}) for name in ("self_coef", "decay_coef")),
    ("mirror", {"amp_coef": SCHEDULE}),
    ("mirror", {"decay_coef": SCHEDULE, "amp_coef": SCHEDULE}),
    ("mirror", {"decay_coef": 50.0, "input_distribution": None}),  # depends on the input
    ("mirror", {"decay_coef": 50.0, "normalize_backward_output": True}),
    ("kolen_pollack", {"decay_coef": SCHEDULE}),
]


@pytest.mark.parametrize(("name", "options"), SOUND, ids=str)
def test_what_can_align_or_is_not_known_is_not(name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alignments.get(alignments.rule(name)(**options))


@pytest.mark.parametrize("variant", [*EVERY])
def test_variants_of_the_common_tests_are_sound(variant):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule(variant)


@pytest.mark.parametrize("preset", config.preset_names())
def test_presets_are_sound(preset):
    check_doubts(preset, build.doubts(config.read(parse(f"--preset={preset}")), layers=4))


def test_a_warning_is_shown_once():
    code = "from neural_alignment import alignments as a\nfor _ in range(3): a.Mirror(amp_coef=0.0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.count("AlignmentWarning: Mirror: B is pulled nowhere") == 1


def gradient(made, batches=64, linear=None, x_shape=(256, 6), bias=None, activation=None):
    """R's mean gradient for B over many draws, W, and B."""
    linear = linear or Matmul()
    kernel_shape = (6, 4) if isinstance(linear, Matmul) else (2, 2, 3, 4)
    w, b = tf.constant(draw(kernel_shape, 1)), tf.constant(draw(kernel_shape, 2))
    total = tf.zeros(kernel_shape)
    for i in range(batches):
        with tf.GradientTape() as tape:
            tape.watch(b)
            loss = made(
                tf.zeros(x_shape),
                forward_kernel=w,
                backward_kernel=b,
                linear=linear,
                activation=activation,
                seed=tf.constant([i, 1]),
            )
        total += tape.gradient(loss, b)
    return total.numpy() / batches, w.numpy(), b.numpy()


def near(found, expected, tolerance=0.06):
    assert np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected)


def test_gradient_of_the_mirror_on_noise():
    made = alignments.Mirror(amp_coef=0.7, decay_coef=0.2, input_stddev=1.5)
    found, w, b = gradient(made)
    near(found, -0.7 * 1.5**2 * w + 2 * 0.2 * b)


def test_gradient_of_the_mirror_behind_a_relu_is_half():
    made = alignments.Mirror(amp_coef=1.0, decay_coef=0.1, activation_forward=True)
    found, w, b = gradient(made, activation=tf.nn.relu)
    near(found, -0.5 * w + 0.2 * b)


@pytest.mark.parametrize("average", [True, False])
def test_gradient_of_the_mirror_of_a_convolution(average):
    made = alignments.Mirror(amp_coef=1.0, decay_coef=0.1, average_positions=average)
    found, w, b = gradient(made, linear=Conv(padding="valid"), x_shape=(64, 5, 6, 3))
    near(found, -w * (1 if average else 4 * 5) + 0.2 * b)


def test_gradient_of_activation_on_noise():
    made = alignments.Activation(
        amp_coef=0.6, sparse_coef=0.4, input_distribution="normal", input_stddev=1.5
    )
    found, w, b = gradient(made)
    near(found, 2 * 0.4 * 1.5**2 * (b - 0.6 / (2 * 0.4) * w))


def test_gradient_of_information_on_noise():
    made = alignments.Information(amp_coef=0.6, null_coef=0.3, decay_coef=0.2, input_stddev=1.5)
    found, w, b = gradient(made)
    near(found, -0.6 * 1.5**2 * w + 2 * 0.3 * 1.5**2 * b @ w.T @ w + 2 * 0.2 * b)


def test_minimum_of_information_along_a_singular_direction():
    """`amp s^2 g / (2 null s^2 g^2 + 2 decay)`: the gradient vanishes there."""
    made = alignments.Information(amp_coef=0.6, null_coef=0.3, decay_coef=0.2)
    w = draw((6, 4), 1)
    u, g, v = np.linalg.svd(w, full_matrices=False)
    b = u @ np.diag(0.6 * g / (2 * 0.3 * g**2 + 2 * 0.2)) @ v
    found = -0.6 * w + 2 * 0.3 * b @ w.T @ w + 2 * 0.2 * b
    np.testing.assert_allclose(found, 0.0, atol=1e-5)
    measured = 0.0
    for i in range(64):
        with tf.GradientTape() as tape:
            kernel = tf.constant(b, tf.float32)
            tape.watch(kernel)
            loss = made(
                tf.zeros((256, 6)),
                forward_kernel=tf.constant(w),
                backward_kernel=kernel,
                linear=Matmul(),
                seed=tf.constant([i, 2]),
            )
        measured = measured + tape.gradient(loss, kernel).numpy() / 64
    assert np.linalg.norm(measured) < 0.06 * np.linalg.norm(0.6 * w)
