"""The callbacks in plain `fit`."""

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers
from neural_alignment.layers import training_step
from neural_alignment.training.callbacks import AlignmentMetrics, GlobalStep
from tests.layers.conformance import draw


def model(alignment, **compile_options):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, "relu", alignment=alignment, name="deep")]
    )
    inputs = keras.Input((5,))
    x = layers.Dense(6, "relu", alignment=alignment, name="first")(inputs)
    made = keras.Model(inputs, layers.Dense(3, alignment=alignment, name="last")(inner(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": loss} | compile_options)
    return made


ANGLES = ("weight_angle", "projection_angle", "local_gradient_angle")
X, LABELS = draw((8, 5)), np.arange(8) % 3


def fit(made, *callbacks, epochs=2):
    return made.fit(
        X, LABELS, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    ).history


@pytest.mark.parametrize(
    "alignment", ["mirror", alignments.Mirror(input_distribution="normal")], ids=["own", "noise"]
)
def test_metrics_are_logged_and_change_no_bit_of_the_training(alignment):
    plain, measured = model(alignment), model(alignment)
    without = fit(plain)
    logged = fit(measured, AlignmentMetrics(X, LABELS))
    assert logged["loss"] == without["loss"]
    for ours, theirs in zip(measured.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    paths = [layer.path for layer in layers.aligned_layers(measured)]
    assert len(paths) == 3
    names = ("weight_angle", "norm_ratio", "projection_angle", "local_gradient_angle")
    assert set(logged) == {"loss"} | {f"{name}/{path}" for name in names for path in paths}
    for layer in layers.aligned_layers(measured):
        values = logged[f"norm_ratio/{layer.path}"]
        assert len(values) == 2
        ratio = np.linalg.norm(layer.backward_kernel) / np.linalg.norm(layer.kernel)
        np.testing.assert_allclose(values[-1], ratio, rtol=1e-5)


def test_without_a_batch_the_kernels_alone_are_measured():
    logged = fit(model("symmetric"), AlignmentMetrics(), epochs=1)
    assert {key.partition("/")[0] for key in logged} == {"loss", "weight_angle", "norm_ratio"}


def two_paths():
    """Two inputs, each through a layer of its own to an output of its own."""
    made = [keras.Input((5,), name="left"), keras.Input((6,), name="right")]
    outputs = [layers.Dense(3, alignment="mirror", name=f"to_{x.name}")(x) for x in made]
    return keras.Model(made, outputs)


@pytest.mark.parametrize("as_dict", [False, True])
def test_metrics_of_a_model_with_two_inputs_and_a_layer_apart_from_the_loss(as_dict):
    x = {"left": X, "right": draw((8, 6))}
    callback = AlignmentMetrics(
        x if as_dict else list(x.values()), LABELS, lambda _, outputs: outputs[0][0, 0] ** 2
    )
    callback.set_model(two_paths())
    callback.on_epoch_end(0, logs := {})
    assert logs.keys() == {
        *(f"{name}/to_left" for name in (*ANGLES, "norm_ratio")),
        *(f"{name}/to_right" for name in (*ANGLES[:2], "norm_ratio")),
    }
    assert all(0.0 < logs[f"{name}/to_left"] < 180.0 for name in ANGLES)


def test_a_batch_needs_labels():
    with pytest.raises(ValueError, match="Expected inputs and labels together"):
        AlignmentMetrics(X)


def schedule():
    """1 at step 0, then 1/2, then 0."""
    return keras.optimizers.schedules.PolynomialDecay(1.0, 2, 0.0)


def test_a_schedule_in_a_plain_fit_is_refused_with_the_remedy():
    with pytest.raises(ValueError) as error:
        fit(model(alignments.Symmetric(self_coef=schedule())))
    assert "Expected a global step for the schedule self_coef=" in str(error.value)
    assert "`neural_alignment.training.GlobalStep()` to the callbacks" in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_a_schedule_follows_the_optimizers_steps(dtype):
    """R of three steps at a rate of zero: the coefficient is all that changes."""
    keras.utils.set_random_seed(0)
    layer = layers.Dense(
        3, alignment=alignments.Symmetric(self_coef=schedule(), decay_coef=0.0), dtype=dtype
    )
    made = keras.Sequential([keras.Input((5,)), layer])
    made.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.zeros((2, 5), "float32")
    history = made.fit(x, np.zeros((2, 3)), epochs=4, verbose=0, callbacks=[GlobalStep()]).history[
        "loss"
    ]
    at_one = -float(np.sum(layer.kernel.numpy() * layer.backward_kernel.numpy()))
    np.testing.assert_allclose(history, at_one * np.array([1.0, 0.5, 0.0, 0.0]), atol=1e-6)
    for step, factor in enumerate((1.0, 0.5, 0.0)):
        with training_step(step) as active:
            layer(x, training=True)
        np.testing.assert_allclose(active.losses[0][1], factor * at_one, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings(  # Keras hands its variables to h5py
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
def test_a_schedule_round_trips_through_a_file(tmp_path):
    made = keras.Sequential(
        [keras.Input((5,)), layers.Dense(3, alignment=alignments.Mirror(amp_coef=schedule()))]
    )
    made.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras").layers[0].alignment
    assert loaded.get_config() == made.layers[0].alignment.get_config()
    assert float(loaded.amp_coef(1)) == 0.5
