"""Conversion of models that were edited, or hold state of other kinds than weights."""

import keras
import numpy as np
import pytest

from neural_alignment import layers
from tests.layers import origins

pytestmark = pytest.mark.backend

K = keras.layers


def base():
    stack = [K.Dense(5, activation="tanh", name=name) for name in "abc"]
    return keras.Sequential([keras.Input((5,)), *stack, K.Dense(3, name="d")], name="base")


def cut():
    model = base()
    return keras.Model(model.inputs, model.layers[-2].output)


def cut_in_the_middle():
    model = base()
    return keras.Model(model.layers[1].input, model.layers[-2].output)


def put_together_anew():
    model = base()
    return keras.Sequential([keras.Input((5,)), *model.layers[1:], K.Dense(2, name="e")])


def popped_and_extended():
    model = base()
    model.pop()
    model.add(K.Dense(2, name="e"))
    return model


def built_before_use():
    first, second = K.Dense(4), K.Dense(3)
    first.build((None, 5))
    second(np.zeros((2, 4)))
    return keras.Sequential([keras.Input((5,)), first, second])


def built_without_input():
    model = keras.Sequential([K.Dense(4), K.Dense(3)])
    model.build((None, 5))
    return model


def called_without_input():
    model = keras.Sequential([K.Dense(4), K.Dense(3)])
    model(np.zeros((2, 5)))
    return model


def model_before_layer():
    return keras.Sequential([base(), K.Dense(2)])


def one_layer_in_two_models():
    dense = K.Dense(5)
    first = keras.Sequential([keras.Input((5,)), dense], name="first")
    second = keras.Sequential([keras.Input((5,)), K.Dense(5), dense], name="second")
    inputs = keras.Input((5,))
    return keras.Model(inputs, first(inputs) * second(inputs))


def mixed_by_policy():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return keras.Sequential([keras.Input((5,)), K.Dense(4), K.BatchNormalization(), K.Dense(2)])
    finally:
        keras.config.set_dtype_policy("float32")


def functions_with_surroundings():
    factor = 3.0
    inputs = keras.Input((5,))
    h = K.Dense(4, activation=lambda x: keras.ops.sin(x) * factor)(inputs)
    h = K.Lambda(lambda x: x * np.float32(2) + factor)(h)
    return keras.Model(inputs, K.Dense(2)(h))


def classes_of_no_module():
    class Regularizer(keras.regularizers.Regularizer):
        def __call__(self, x):
            return keras.ops.sum(x)

        def get_config(self):
            return {}

    class Double(K.Layer):
        def call(self, inputs):
            return inputs * 2

    inputs = keras.Input((5,))
    h = K.Dense(4, kernel_regularizer=Regularizer())(Double()(inputs))
    return keras.Model(inputs, K.Dense(2)(h))


def arrays_among_attributes():
    class Projected(K.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.directions = np.random.default_rng().normal(size=(5, 5)).astype("float32")

        def call(self, inputs):
            return keras.ops.matmul(inputs, keras.ops.convert_to_tensor(self.directions))

    inputs = keras.Input((5,))
    return keras.Model(inputs, K.Dense(2)(Projected()(inputs)))


def states():
    inputs = keras.Input(batch_shape=(3, 4, 5))
    model = keras.Model(inputs, K.Dense(2)(K.LSTM(3, stateful=True)(inputs)))
    model(np.ones((3, 4, 5)))
    return model


def tied_embedding():
    tokens = keras.Input((5,), dtype="int32")
    embedding = K.Embedding(6, 6)
    h = K.Dense(6)(embedding(tokens))
    return keras.Model(tokens, keras.ops.matmul(h, embedding.embeddings))


def kernel_as_an_argument():
    inputs = keras.Input((5,))
    dense = K.Dense(5, name="tied")
    return keras.Model(inputs, keras.ops.matmul(dense(inputs), dense.kernel))


def quantized():
    model = base()
    for layer in model.layers:
        layer.quantize("int8")
    return model


COPIED = {
    build.__name__: build
    for build in (
        cut,
        cut_in_the_middle,
        put_together_anew,
        popped_and_extended,
        built_before_use,
        built_without_input,
        called_without_input,
        model_before_layer,
        one_layer_in_two_models,
        mixed_by_policy,
        functions_with_surroundings,
        classes_of_no_module,
        arrays_among_attributes,
        states,
        tied_embedding,
        kernel_as_an_argument,
        quantized,
    )
}


@pytest.mark.parametrize(
    "name",
    # Keras quantizes for many seconds.
    [pytest.param(n, marks=pytest.mark.slow) if n == "quantized" else n for n in COPIED],
)
def test_the_copy_computes_the_same(name):
    model = COPIED[name]()
    origins.perturb(model)
    x = origins.batch(model)
    copies = [layers.strip(model), layers.align(model, "symmetric", rest="backprop")]
    copies.append(layers.strip(copies[1]))
    for copy in copies:
        before = [origins.values(side) for side in (model, copy)]
        expected = origins.outputs(model, x)
        for one, other in zip(expected, origins.outputs(copy, x), strict=True):
            np.testing.assert_array_equal(one, other)
        if name == "states":  # the model has moved on, and so has the copy
            assert expected[0].tobytes() != origins.outputs(model, x)[0].tobytes()
            model.layers[1].reset_state()
            for other in copies:
                other.layers[1].reset_state()
        else:
            assert before == [origins.values(side) for side in (model, copy)]


def test_tied_weights_stay_tied_in_the_copy():
    model = kernel_as_an_argument()
    copy = layers.align(model, "symmetric")
    x = origins.batch(model)
    copied = origins.outputs(copy, x)[0]
    kernel = model.get_layer("tied").kernel
    kernel.assign(kernel * 2)
    np.testing.assert_array_equal(origins.outputs(copy, x)[0], copied)
    kernel = copy.get_layer("tied").kernel
    kernel.assign(kernel * 2)
    np.testing.assert_allclose(origins.outputs(copy, x)[0], origins.outputs(model, x)[0], rtol=1e-6)


def lookup_of_words():
    lookup = K.StringLookup()
    lookup.adapt(np.array(["b", "a", "a"]))
    words = keras.Input((1,), dtype="string")
    return keras.Model(words, K.Dense(2)(K.Embedding(6, 3)(lookup(words)))), [["a"], ["z"]]


def lookup_of_numbers():
    lookup = K.IntegerLookup(output_mode="multi_hot")
    lookup.adapt(np.array([4, 4, 7]))
    numbers = keras.Input((1,), dtype="int64")
    return keras.Model(numbers, K.Dense(2)(lookup(numbers))), [[7], [3]]


def weighted_words():
    words = K.TextVectorization(output_mode="tf_idf")
    words.adapt(np.array(["a b", "b c", "c a a"]))
    texts = keras.Input((1,), dtype="string")
    return keras.Model(texts, K.Dense(2)(words(texts))), [["a b"], ["c z"]]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras has tables there only")
@pytest.mark.parametrize("build", [lookup_of_words, lookup_of_numbers, weighted_words])
def test_vocabularies_are_copied(build):
    if build is weighted_words and keras.__version__.startswith("3.8."):
        pytest.skip("this Keras does not load what it saves of it")
    model, x = build()
    for copy in (layers.strip(model), layers.align(model, "symmetric")):
        assert origins.difference(model, copy, np.array(x)) == 0.0
