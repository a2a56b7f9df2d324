"""What conversion needs of Keras's private attributes is still there, and does what it is for."""

import warnings

import keras
import numpy as np
import pytest

from neural_alignment import keras_private

K = keras.layers

pytestmark = pytest.mark.backend


def test_sublayers_are_those_a_layer_holds_itself():
    inner = keras.Sequential([keras.Input((3,)), K.Dense(2)])
    inputs = keras.Input((3,))
    model = keras.Model(inputs, K.Dense(2)(inner(inputs)))
    model.beside = K.Dense(1)
    assert keras_private.sublayers(model)[: len(model.layers)] == model.layers
    assert model.beside not in model.layers
    newer = keras_private.sublayers(model)[len(model.layers) :]
    assert newer in ([model.beside], [])  # Keras 3.8 does not count its weights as the model's
    assert keras_private.sublayers(inner)[1:] == inner.layers
    assert isinstance(keras_private.sublayers(inner)[0], K.InputLayer)


def test_what_was_made_trainable_is_known_of_frozen_layers():
    layer = K.BatchNormalization()
    layer.build((None, 3))
    layer.trainable = False
    assert layer.trainable_weights == []
    assert keras_private.made_trainable(layer) == [layer.gamma, layer.beta]


def test_a_symbolic_input_comes_from_its_input_layer():
    model = keras.Sequential([keras.Input((3,)), K.Dense(2)])
    assert keras_private.origin(model.inputs[0]) is keras_private.sublayers(model)[0]
    assert keras_private.origin(model.outputs[0]) is model.layers[0]


def test_a_graph_runs_with_other_operations_in_the_old_ones_places():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.negative(K.Identity()(inputs)))
    run: list = []

    def call(operation, *args, **kwargs):
        run.append(operation)
        return operation(*args, **kwargs)

    x = keras.ops.ones((2, 3))
    copies = {id(op): keras_private.copy_operation(op) for op in model.operations[2:]}
    outputs = keras_private.run_graph(model, x, call, lambda op: copies.get(id(op), op))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(outputs), -np.ones((2, 3)))
    assert [type(op) for op in run] == [type(op) for op in model.operations[1:]]
    assert run[1] is copies[id(model.operations[2])] is not model.operations[2]


def test_a_copied_operation_has_its_settings_and_no_calls():
    inputs = keras.Input((3,))
    outputs = keras.ops.expand_dims(inputs, axis=-1)
    operation = keras_private.origin(outputs)
    copy = keras_private.copy_operation(operation)
    again = copy(keras.Input((5,)))
    assert again.shape == (None, 5, 1)
    assert keras_private.origin(again) is copy
    assert keras_private.origin(outputs) is operation
    assert operation.output is outputs


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="this Keras has none")
def test_a_remat_mode_is_copied():
    with keras.RematScope(mode="full"):
        source = K.Dense(2)
    target = K.Dense(2)
    assert target._remat_mode is None
    keras_private.copy_remat_mode(source, target)
    assert target._remat_mode.mode == "full"


def test_lambdas_in_configs_are_allowed_inside_only():
    with warnings.catch_warnings(action="ignore"):  # of the lambda
        config = keras.saving.serialize_keras_object(lambda x: x + 1)
    with keras_private.unsafe_deserialization():
        assert keras.saving.deserialize_keras_object(config)(1) == 2
    with pytest.raises(ValueError, match="lambda"):
        keras.saving.deserialize_keras_object(config)


def test_losses_of_the_last_call_are_put_back():
    layer = K.Dense(2, activity_regularizer="l2")
    layer(np.ones((1, 3)))
    before = layer.losses
    with keras_private.losses_kept([layer]):
        layer(np.ones((2, 3)))
        assert layer.losses[0] is not before[0]
    assert [id(loss) for loss in layer.losses] == [id(loss) for loss in before]
