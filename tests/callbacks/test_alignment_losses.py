"""J and R apart in `fit`."""

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers, metrics
from neural_alignment.callbacks import AlignmentLosses
from tests.callbacks.networks import LABELS, X, fit, nested, value

pytestmark = pytest.mark.backend

BACKEND = keras.backend.backend()


class Task(keras.metrics.SparseCategoricalCrossentropy):
    """J without regularizers, as a compiled metric."""

    def __init__(self):
        super().__init__(name="task", from_logits=True)


def symmetric_loss(layer, decay, self_):
    kernel, backward = value(layer.kernel), value(layer.backward_kernel)
    squares = np.sum(kernel**2) + np.sum(backward**2)
    return decay * squares - self_ * np.sum(kernel * backward)


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"jit_compile": True}])
def test_loss_is_j_and_alignment_loss_is_r(options):
    if BACKEND == "torch" and options.get("jit_compile"):
        pytest.skip("torch.compile takes minutes")
    still = keras.optimizers.SGD(0.0)
    made = nested("symmetric", optimizer=still, metrics=[Task()], **options)
    history = fit(made, AlignmentLosses(by_layer=True), epochs=2)
    sites = metrics.named_sites(made)
    assert set(history) == {"loss", "task", "alignment_loss"} | {
        f"alignment_loss/{name}" for name in ("first", "inner/deep", "last")
    }
    np.testing.assert_allclose(history["loss"], history["task"], rtol=1e-6)
    for name, site in sites.items():
        expected = symmetric_loss(site.layer, 20.0, 40.0)
        np.testing.assert_allclose(history[f"alignment_loss/{name}"], expected, rtol=1e-5)
    total = sum(np.array(history[f"alignment_loss/{name}"]) for name in sites)
    np.testing.assert_allclose(history["alignment_loss"], total, rtol=1e-5)


@pytest.mark.parametrize(
    "alignment", ["mirror", "kolen_pollack", alignments.Symmetric(update_forward=True)]
)
def test_training_is_as_without_it(alignment):
    plain, apart = nested(alignment), nested(alignment)
    without = fit(plain, validation_data=(X, LABELS))
    logged = fit(apart, AlignmentLosses(), validation_data=(X, LABELS))
    for ours, theirs in zip(apart.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    both = np.array(logged["loss"]) + np.array(logged["alignment_loss"])
    np.testing.assert_allclose(both, without["loss"], rtol=1e-5)
    assert set(logged) == {"loss", "alignment_loss", "val_loss"}
    np.testing.assert_allclose(logged["val_loss"], without["val_loss"], rtol=1e-5)


def test_regularizers_belong_to_j():
    keras.utils.set_random_seed(0)
    layer = layers.Dense(3, alignment="symmetric", kernel_regularizer=keras.regularizers.L2(0.1))
    made = keras.Sequential([keras.Input((5,)), layer])
    made.compile(keras.optimizers.SGD(0.0), "mse")
    zeros = np.zeros((8, 5), "float32")
    history = made.fit(zeros, np.zeros((8, 3)), verbose=0, callbacks=[AlignmentLosses()]).history
    np.testing.assert_allclose(history["loss"], 0.1 * np.sum(value(layer.kernel) ** 2), rtol=1e-5)
    np.testing.assert_allclose(
        history["alignment_loss"], symmetric_loss(layer, 20.0, 40.0), rtol=1e-5
    )


def test_a_huge_r_leaves_j_exact():
    still = keras.optimizers.SGD(0.0)
    huge = alignments.Symmetric(self_coef=1e7, decay_coef=1e7)
    history = fit(nested(huge, optimizer=still, metrics=[Task()]), AlignmentLosses())
    assert abs(history["alignment_loss"][0]) > 1e7
    np.testing.assert_allclose(history["loss"], history["task"], rtol=1e-5)


def test_batches_count_by_their_examples():
    made = nested("symmetric", optimizer=keras.optimizers.SGD(0.02))
    halves = fit(made, AlignmentLosses(), batch_size=5, epochs=1)
    again = nested("symmetric", optimizer=keras.optimizers.SGD(0.02))
    before = sum(symmetric_loss(s.layer, 20.0, 40.0) for s in metrics.named_sites(again).values())
    again.train_on_batch(X[:5], LABELS[:5])
    after = sum(symmetric_loss(s.layer, 20.0, 40.0) for s in metrics.named_sites(again).values())
    np.testing.assert_allclose(halves["alignment_loss"], (5 * before + 3 * after) / 8, rtol=1e-5)


def test_the_model_is_left_as_it_was():
    made = nested("symmetric")
    fit(made)
    apart = fit(made, AlignmentLosses())
    after = fit(made)
    assert set(after) == {"loss"} and set(apart) == {"loss", "alignment_loss"}
    assert "compute_loss" not in vars(made)
    assert set(made.evaluate(X, LABELS, verbose=0, return_dict=True)) == {"loss"}


@pytest.mark.parametrize("alignment", [None, "feedback"])
def test_a_model_without_r_has_none(alignment):
    plain = fit(nested(alignment))
    history = fit(nested(alignment), AlignmentLosses())
    assert history["alignment_loss"] == [0.0, 0.0]
    np.testing.assert_allclose(history["loss"], plain["loss"], rtol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a training step of its own is the back end's")
@pytest.mark.parametrize("given", [("x", "y", "y_pred"), ("y", "y_pred"), ()])
def test_a_training_step_of_ones_own_gives_what_it_likes(given):
    import tensorflow as tf

    class Own(keras.Sequential):
        def train_step(self, data):
            values = {"x": data[0], "y": data[1]}
            with tf.GradientTape() as tape:
                values["y_pred"] = self(data[0], training=True)
                by_name = {name: values[name] for name in given}
                in_order = () if given else (None, data[1], values["y_pred"])
                loss = self.compute_loss(*in_order, **by_name)
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss} | self.get_metrics_result()

    layer = layers.Dense(3, alignment="symmetric")
    made = Own([keras.Input((5,)), layer])
    made.compile(keras.optimizers.SGD(0.0), "mse")
    history = made.fit(X, np.zeros((8, 3)), verbose=0, callbacks=[AlignmentLosses()]).history
    expected = symmetric_loss(layer, 20.0, 40.0)
    np.testing.assert_allclose(history["alignment_loss"], expected, rtol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a training step of its own is the back end's")
def test_a_training_step_that_records_nothing_is_refused():
    import tensorflow as tf

    class Own(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x, training=True) - y) ** 2) + sum(self.losses)
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    made = Own([keras.Input((5,)), layers.Dense(3, alignment="symmetric")])
    made.compile("sgd")
    with pytest.raises(ValueError, match="Expected a model whose training step calls compute_loss"):
        made.fit(X, np.zeros((8, 3), "float32"), verbose=0, callbacks=[AlignmentLosses()])


def test_several_in_one_training_are_refused():
    made = nested("symmetric")
    with pytest.raises(ValueError, match="Expected one AlignmentLosses in the callbacks"):
        fit(made, AlignmentLosses(), AlignmentLosses(by_layer=True))
    one = AlignmentLosses()
    assert "alignment_loss" in fit(made, one, epochs=1)  # what failed has left nothing
    assert "alignment_loss" in fit(made, one, one, epochs=1)
    assert set(fit(made, epochs=1)) == {"loss"}
