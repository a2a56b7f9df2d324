"""Rules of a whole model on the models that users build, and on their ends."""

import keras
import numpy as np
import pytest

from neural_alignment import keras_private, layers
from tests.layers import conversion, origins

pytestmark = pytest.mark.backend

K = keras.layers
ops = keras.ops
# Frozen weights take another kernel of its own LSTM there, to rounding.
TORCH = keras.backend.backend() == "torch"

# Of the models of the conversion table, those that no error can be sent through, and why.
REFUSED = {
    "shared": "2 tensors come together",
    "dictionaries": "2 tensors come together",
    "operators": "2 tensors come together",
    "own_train_step_stack": "a TrainedStack, whose class would be lost",
}
NOT_DIRECT = {
    "u_net": "at the places .* of the logits",
    "noise": "at the places .* of the logits",
}


def names_in_both():
    """Two nested models with layers of equal names, and one that is called twice."""

    def tower(name):
        inputs = keras.Input((6,), name="image")
        hidden = K.Dense(5, activation="relu", name="a")(inputs)
        return keras.Model(inputs, K.Dense(6, name="b")(hidden), name=name)

    left, right = tower("l"), tower("r")
    inputs = keras.Input((6,))
    h = K.Add(name="a_2")([left(left(inputs)), right(inputs)])
    return keras.Model(inputs, K.Dense(2, name="a")(h))


def names_of_ours():
    parts = [K.Dense(5, name="a"), K.ReLU(name="a_stop"), K.Dense(4, name="direct_feedback")]
    end = K.Dense(3, activation="softmax", name="b")
    return keras.Sequential([keras.Input((6,)), *parts, K.ReLU(name="b_activation"), end])


def in_a_dictionary():
    inputs = keras.Input((6,))
    return keras.Model([inputs], {"a": K.Dense(2, activation="softmax")(K.Dense(5)(inputs))})


def in_a_list():
    inputs = keras.Input((6,))
    return keras.Model(inputs, [K.Softmax()(K.Dense(2)(K.Dense(5)(inputs)))])


def model_in_a_wrapper():
    stack = keras.Sequential([K.Dense(5, activation="tanh"), layers.Dense(4, alignment="mirror")])
    parts = [K.TimeDistributed(stack), K.Flatten(), K.Dense(2)]
    return keras.Sequential([keras.Input((4, 6)), *parts])


def half_precision():
    parts = [K.Dense(5, activation="tanh"), K.Dense(2, activation="softmax", dtype="mixed_float16")]
    return keras.Sequential([keras.Input((6,)), *parts])


def softmax_in_a_nested_model():
    inner = keras.Sequential([keras.Input((5,)), K.Dense(3), K.Softmax(name="end")])
    return keras.Sequential([keras.Input((6,)), K.Dense(5, activation="tanh"), inner])


def structures_in_a_nested_model():
    given = {"a": keras.Input((6,), name="a"), "b": keras.Input((6,), name="b")}
    made = {"c": K.Dense(3)(given["a"]), "d": K.Dense(3)(given["b"])}
    inputs = keras.Input((6,))
    outputs = keras.Model(given, made)({"a": inputs, "b": inputs * 2.0})
    return keras.Model(inputs, K.Dense(2)(outputs["c"] + outputs["d"]))


def mask_into_a_nested_model():
    inner = keras.Sequential([keras.Input((7, 6)), K.Dense(5), K.LSTM(4)])
    tokens = keras.Input((7,), dtype="int32")
    return keras.Model(tokens, K.Dense(2)(inner(K.Embedding(5, 6, mask_zero=True)(tokens))))


MODELS = conversion.MODELS | {
    build.__name__: build
    for build in (
        names_in_both,
        names_of_ours,
        in_a_dictionary,
        in_a_list,
        model_in_a_wrapper,
        half_precision,
        softmax_in_a_nested_model,
        structures_in_a_nested_model,
        mask_into_a_nested_model,
    )
}


@pytest.mark.filterwarnings("ignore:.*does not support masking")
@pytest.mark.parametrize("rule", ["direct", "frozen"])
@pytest.mark.parametrize("name", MODELS)
def test_the_copy_computes_the_same(name, rule):
    if name == "adapted":
        pytest.importorskip("tensorflow", reason="Keras's adapt() needs it on every back end")
    model = MODELS[name]()
    refused = REFUSED | (NOT_DIRECT if rule == "direct" else {})
    if name in refused:
        with pytest.raises(ValueError, match=f"(?s)Expected .*{refused[name]}"):
            layers.align(model, rule)
        return
    if name != "adapted":
        origins.perturb(model)
    x = origins.batch(model)
    aligned = layers.align(model, rule)
    stock = layers.strip(aligned)
    for copy in (aligned, stock):
        if not isinstance(model, keras.Sequential):
            assert type(copy) is type(model)
            assert type(copy.output) is type(model.output)
        assert origins.difference(model, copy, x) <= (1e-6 if TORCH else 0.0)
    held = [type(layer) for layer in keras_private.flatten_layers(stock)]
    assert not {layers.StopError, layers.DirectFeedback} & set(held)


def test_layers_of_equal_names_are_told_apart():
    aligned = layers.align(names_in_both(), "direct")
    points = [weight.name.removeprefix("backward_") for weight in aligned.layers[-1].weights]
    assert sorted(points) == ["a", "l_a", "l_a_2", "l_b", "l_b_2", "r_a", "r_b"]


@pytest.mark.parametrize("training", [False, True])
def test_a_nested_model_is_called_as_it_was(training):
    """As a trained one that is to stay in inference."""
    inner = keras.Sequential([keras.Input((6,)), K.Dense(5), K.BatchNormalization(), K.ReLU()])
    inputs = keras.Input((6,))
    model = keras.Model(
        inputs, K.Dense(3)(K.BatchNormalization()(inner(inputs, training=training)))
    )
    origins.perturb(model)
    x = origins.batch(model, 8)
    copies = [layers.align(model, "direct"), layers.strip(layers.align(model, "direct"))]
    for mode in (False, True):
        ours, *theirs = (
            keras.ops.convert_to_numpy(keras.ops.stop_gradient(side(x, training=mode)))
            for side in (model, *copies)
        )
        for one in theirs:
            np.testing.assert_allclose(one, ours, rtol=1e-6, atol=1e-6)


class Probabilities(K.Layer):
    """Holds a layer, and applies softmax to what it gives."""

    def __init__(self, held=None, **kwargs):
        super().__init__(**kwargs)
        self.held = held

    def build(self, input_shape):
        if self.held is not None:
            self.held.build(input_shape)

    def call(self, inputs):
        return ops.softmax(inputs if self.held is None else self.held(inputs))

    def get_config(self):
        held = self.held and keras.saving.serialize_keras_object(self.held)
        return {**super().get_config(), "held": held}

    @classmethod
    def from_config(cls, config):
        held = config.pop("held")
        return cls(held and keras.saving.deserialize_keras_object(held), **config)


def sigmoid(x):
    return 1.0 / (1.0 + ops.exp(-x))


# What stands behind five features: whether its softmax or sigmoid is known, or is refused.
ENDS = {
    "sparsemax": (lambda h: ops.sparsemax(K.Dense(3)(h)), "Sparsemax"),
    "hard_tanh": (lambda h: ops.hard_tanh(K.Dense(3)(h)), "HardTanh"),
    "activation": (lambda h: K.Dense(3, activation=lambda x: ops.softmax(x))(h), "Activation"),
    "ours": (lambda h: layers.Dense(3, "softmax", alignment="mirror")(h), "Activation"),
    "lambda": (lambda h: K.Lambda(sigmoid, name="it")(K.Dense(3)(h)), None),
    "layer": (lambda h: Probabilities(name="it")(K.Dense(3)(h)), None),
    "in_the_head": (lambda h: Probabilities(K.Dense(3), name="it")(h), None),
    "layer_as_activation": (lambda h: K.Dense(3, activation=K.Softmax(), name="it")(h), None),
    "recurrent": (lambda h: K.LSTM(3, name="it")(h[:, None]), None),
    "scaled": (lambda h: K.Lambda(lambda x: 0.01 * x)(K.Dense(3)(h)), "DirectFeedback"),
    "zeros": (lambda h: K.Dense(3, kernel_initializer="zeros")(h), "DirectFeedback"),
}
ENDS = {name: end for name, end in ENDS.items() if name != "sparsemax" or hasattr(ops, name)}


@pytest.mark.parametrize("name", ENDS)
def test_the_error_is_taken_in_front_of_every_end(name):
    build, last = ENDS[name]
    inputs = keras.Input((6,))
    model = keras.Model(inputs, build(K.Dense(5, activation="tanh")(inputs)))
    if last is None:
        with pytest.raises(ValueError, match="(?s)Expected .*Received: 'it'.*logits"):
            layers.align(model, "direct")
        return
    aligned = layers.align(model, "direct")
    assert type(aligned.operations[-1]).__name__ == last
    assert origins.difference(model, aligned, origins.batch(model)) == 0.0


def test_an_activation_that_is_called_twice_is_not_taken_for_the_end():
    for layer in (K.Softmax(name="it"), K.Dense(6, activation="softmax", name="it")):
        inputs = keras.Input((6,))
        model = keras.Model(inputs, layer(K.Dense(6)(layer(inputs))))
        with pytest.raises(ValueError, match="'it', a .*called elsewhere, too"):
            layers.align(model, "direct")


@pytest.mark.parametrize("inputs", [np.ones((2, 3)), [np.ones((2, 3))]], ids=["tensor", "list"])
def test_feedback_without_points_is_refused(inputs):
    with pytest.raises(ValueError, match=r"at least one point.*Received: 1 tensor\(s\)"):
        layers.DirectFeedback()(inputs)


def test_a_layer_that_is_skipped_keeps_its_rule():
    parts = [layers.Dense(5, alignment="mirror", name="a"), K.Dense(4, name="b")]
    head = layers.Dense(3, "softmax", alignment="mirror", name="head")
    model = keras.Sequential([keras.Input((6,)), *parts, head])
    aligned = layers.align(model, "direct", skip=["a", "head"])
    rows = [line.split() for line in layers.conversion_report(aligned).splitlines()]
    assert ["a", "Dense", "mirror"] in rows and ["b", "Dense", "direct"] in rows
    for name in ("a", "head"):
        kernels = [side.get_layer(name).backward_kernel for side in (model, aligned)]
        np.testing.assert_array_equal(*map(origins.array, kernels))
    with pytest.raises(ValueError, match="a layer with a kernel to send the error to"):
        layers.align(model, "direct", skip=K.Layer)
    with pytest.raises(ValueError, match="no `skip` with the rule 'frozen'"):
        layers.align(model, "frozen", skip="a")


def test_settings_of_a_models_class_are_not_lost():
    inputs = keras.Input((6,))
    outputs = K.Dense(3)(K.Dense(5)(inputs))

    class Tempered(keras.Model):
        def __init__(self, *args, **kwargs):
            temperature = kwargs.pop("temperature", 1.0)
            super().__init__(*args, **kwargs)
            self.temperature = temperature

    aligned = layers.align(Tempered(inputs, outputs), "direct")
    assert type(aligned) is Tempered
    aligned.temperature = 2.0
    with pytest.raises(ValueError, match="Expected temperature=2.0"):
        layers.strip(aligned)


def _rewired(rule):
    stack = [K.Dense(5, activation="tanh"), K.BatchNormalization(), K.Dense(4)]
    return layers.align(keras.Sequential([keras.Input((6,)), *stack]), rule)


def in_functional(rule):
    inputs = keras.Input((6,))
    return keras.Model(inputs, K.Dense(3)(K.ReLU()(_rewired(rule)(inputs))))


def in_sequential(rule):
    return keras.Sequential([keras.Input((6,)), _rewired(rule), K.Dense(3)])


def in_a_wrapper(rule):
    parts = [K.TimeDistributed(_rewired(rule)), K.Flatten(), K.Dense(3)]
    return keras.Sequential([keras.Input((2, 6)), *parts])


def twice_inside(rule):
    inner = in_functional(rule)
    inputs = keras.Input((6,))
    return keras.Model(inputs, K.Dense(3)(K.Add()([inner(inputs), inner(inputs * 2.0)])))


@pytest.mark.parametrize("rule", ["direct", "frozen"])
@pytest.mark.parametrize("build", [in_functional, in_sequential, in_a_wrapper, twice_inside])
def test_a_nested_model_loses_its_rule_too(build, rule):
    model = build(rule)
    x = origins.batch(model)
    copies = [layers.strip(model), layers.align(model, "symmetric")]
    copies.append(layers.strip(layers.align(model, "direct")))
    for copy in copies:
        assert origins.difference(model, copy, x) == 0.0
        held = [type(layer) for layer in keras_private.flatten_layers(copy)]
        assert not {layers.StopError, layers.DirectFeedback} & set(held)
        assert len(copy.non_trainable_weights) == 2  # BatchNorm's statistics
    assert len(layers.sites(copies[1])) == 3 + (build is twice_inside)
    held = keras_private.flatten_layers(model)
    assert any(isinstance(layer, layers.StopError) for layer in held)


def test_a_rule_of_the_model_in_a_custom_layer_cannot_be_taken_off():
    class Held(K.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.stop = layers.StopError(name="stop")

        def call(self, inputs):
            return self.stop(inputs)

    model = keras.Sequential([keras.Input((6,)), Held(name="it"), K.Dense(3)])
    with pytest.raises(ValueError, match="'it', a Held, which holds 'stop', a StopError"):
        layers.strip(model)


def test_what_frozen_kept_from_training_trains_again(tmp_path):
    parts = [K.Dense(5, name="a"), K.BatchNormalization(), K.Dense(4, name="b"), K.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *parts])
    model.get_layer("a").trainable = False
    model.get_layer("b").bias.trainable = False
    frozen = layers.align(model, "frozen")
    frozen.save(tmp_path / "m.keras")
    for source in (frozen, keras.saving.load_model(tmp_path / "m.keras")):
        for copy in (layers.strip(source), layers.strip(layers.align(source, "frozen"))):
            for old, new in zip(model.weights, copy.weights, strict=True):
                assert old.trainable == new.trainable, old.path
            assert [layer.trainable for layer in model.layers] == [
                copy.get_layer(layer.name).trainable for layer in model.layers
            ]
