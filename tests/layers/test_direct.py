"""Direct feedback against a public library's numbers and float64 passes written by hand."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import operations
from neural_alignment import alignments, layers, models

DATA = pathlib.Path(__file__).parent / "data"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def peer(name):
    with np.load(DATA / f"{name}.npz") as data:
        return dict(data)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def gradients(model, x, loss, variables=None):
    """dx and the gradient of every trainable weight, by name."""
    variables = model.trainable_variables if variables is None else variables
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(model(x, training=True))
    found = tape.gradient(value, [x, *variables])
    return {"x": found[0], **{v.path: g for v, g in zip(variables, found[1:], strict=True)}}


def test_a_dense_layer_of_the_peers():
    """The error of ten logits, at a layer of five units whose own error does not go on."""
    d = peer("linear_dfa_xavier_0")
    inputs, logits = keras.Input((7,)), keras.Input((10,))
    dense = keras.layers.Dense(5)
    hidden = dense(layers.StopError()(inputs))
    feedback = layers.DirectFeedback()
    model = keras.Model([inputs, logits], [hidden, feedback([logits, inputs])])
    dense.set_weights([d["weight"].T, d["bias"]])
    feedback.set_weights([d["weight_backward_used"]])
    x = tf.constant(d["x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, out = model([x, tf.zeros((4, 10))])
        j = tf.reduce_sum(y * d["grad_output"]) + tf.reduce_sum(out * d["loss_gradient"])
    dx, dw, db = tape.gradient(j, [x, dense.kernel.value, dense.bias.value])
    np.testing.assert_allclose(y, d["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx, d["grad_input"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dw, d["grad_weight"].T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(db, d["grad_bias"], rtol=1e-5, atol=1e-5)


def test_a_convolution_of_the_peers():
    """Away from the border the peers' error is that of B summed over the window."""
    d = peer("conv_dfa_xavier_0")
    x = tf.constant(d["x"].transpose(0, 2, 3, 1))
    inputs, logits = keras.Input((6, 6, 3)), keras.Input((10,))
    conv = keras.layers.Conv2D(4, 3, padding="same")
    feedback = layers.DirectFeedback()
    outputs = [conv(layers.StopError()(inputs)), feedback([logits, inputs])]
    model = keras.Model([inputs, logits], outputs)
    conv.set_weights([d["weight"].transpose(2, 3, 1, 0), d["bias"]])
    feedback.set_weights([d["weight_backward_used"].sum((2, 3))])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, out = model([x, tf.zeros((2, 10))])
        j = tf.reduce_sum(y * d["grad_output"].transpose(0, 2, 3, 1))
        j += tf.reduce_sum(out * d["loss_gradient"])
    dx, dw = tape.gradient(j, [x, conv.kernel.value])
    inner = np.s_[:, 1:-1, 1:-1]
    expected = d["grad_input"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(dx.numpy()[inner], expected[inner], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dw, d["grad_weight"].transpose(2, 3, 1, 0), rtol=1e-4, atol=1e-4)


def test_three_updates_of_the_peers_network():
    d = peer("net_mlp_dfa")
    stock = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "tanh", name="a"),
            keras.layers.Dense(7, "relu", name="b"),
            keras.layers.Dense(3, name="c"),
        ]
    )
    model = layers.align(stock, "direct")
    by_name = {f"module.{2 * i}": model.get_layer(name) for i, name in enumerate("abc")}
    for name, layer in by_name.items():
        layer.set_weights([d[f"init/{name}.weight"].T, d[f"init/{name}.bias"]])
    model.layers[-1].set_weights([d[f"init/{name}.weight_backward"] for name in by_name])
    np.testing.assert_allclose(model(d["x"][0]), d["logits0"], rtol=1e-5, atol=1e-6)
    found = gradients(model, d["x"][0], lambda y: LOSS(d["y"][0], y))
    np.testing.assert_allclose(found["x"], d["grad0/input"], rtol=1e-5, atol=1e-6)
    for name, layer in by_name.items():
        for variable, part in ((layer.kernel, "weight"), (layer.bias, "bias")):
            np.testing.assert_allclose(
                found[variable.path], d[f"grad0/{name}.{part}"].T, rtol=1e-5, atol=1e-6
            )
    optimizer = keras.optimizers.SGD(0.1, 0.9)
    for x, y, expected in zip(d["x"], d["y"], d["losses"], strict=True):
        with tf.GradientTape() as tape:
            loss = LOSS(y, model(x, training=True))
            value = loss + 5e-4 * sum(tf.reduce_sum(v**2) for v in model.trainable_variables)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        of = tape.gradient(value, model.trainable_variables)
        # Keras's momentum has the rate inside the velocity: the same at a constant rate.
        optimizer.apply(of, model.trainable_variables)
    for name, layer in by_name.items():
        np.testing.assert_allclose(layer.kernel, d[f"after3/{name}.weight"].T, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer.bias, d[f"after3/{name}.bias"], rtol=1e-5, atol=1e-5)


# What follows compares with the same model in pieces: each piece's ordinary gradient, in float64,
# of the error that feedback puts at its output.


def transformer():
    """Two blocks over a sequence, and a mean."""
    inputs = x = keras.Input((5, 6))
    for i in range(2):
        y = keras.layers.MultiHeadAttention(2, 3, name=f"attention{i}")(x, x)
        x = keras.layers.LayerNormalization()(keras.layers.Add()([x, y]))
        y = keras.layers.Dense(8, "gelu", name=f"wide{i}")(x)
        y = keras.layers.Dense(6, name=f"narrow{i}")(y)
        x = keras.layers.LayerNormalization()(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="head")(x))


NETWORKS = {
    "mlp": lambda: models.get("fc", input_shape=(6,), num_classes=4, layers_list=(7, 5)),
    "lenet5": lambda: models.get("lenet5", input_shape=(12, 12, 1), num_classes=4),
    "resnet20": lambda: models.get("resnet20", input_shape=(8, 8, 3), num_classes=4),
    "transformer": transformer,
}


def is_kernel_layer(layer):
    return isinstance(layer, keras.layers.MultiHeadAttention) or hasattr(layer, "kernel")


def by_hand(model, feedback, x, labels):
    """Gradients of direct feedback: every kernel layer's input gets `e B`, by hand in TensorFlow.

    The graph runs operation by operation; errors go back through each by its own gradient, but not
    through a layer with a kernel, whose input gets the logits' error through its B.
    """
    values, tapes = {id(model.inputs[0]): tf.constant(x)}, []
    for nodes in (model._nodes_by_depth[d] for d in sorted(model._nodes_by_depth, reverse=True)):
        for node in nodes:
            if node.is_input:
                continue
            arguments = [values[id(t)] for t in node.input_tensors]
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                given = arguments[0] if len(arguments) == 1 else arguments
                if isinstance(node.operation, keras.layers.MultiHeadAttention):
                    y = node.operation(*arguments, training=True)
                elif getattr(node.operation, "_call_has_training_arg", False):
                    y = node.operation(given, training=True)
                else:
                    y = node.operation(given)
            values[id(node.outputs[0])] = y
            tapes.append((node, tape, arguments, y))
    logits = tapes[-1][3].numpy().astype("float64")
    p = np.exp(logits - logits.max(1, keepdims=True))
    e = (p / p.sum(1, keepdims=True) - np.eye(logits.shape[1])[labels]) / len(labels)
    errors = {id(tapes[-1][0].outputs[0]): e}
    found = {}
    for node, tape, arguments, y in reversed(tapes):
        error = tf.cast(errors[id(node.outputs[0])], y.dtype)
        weights = getattr(node.operation, "trainable_variables", [])
        of = tape.gradient(y, [*weights, *arguments], error, unconnected_gradients="zero")
        for weight, g in zip(weights, of, strict=False):
            found[weight.path] = found.get(weight.path, 0.0) + g.numpy()
        to_inputs = [g.numpy() for g in of[len(weights) :]]
        if is_kernel_layer(node.operation):
            sent = e @ feedback[node.operation.name]
            shape = to_inputs[0].shape
            places = [shape[0], *[1] * (len(shape) - 2), shape[-1]]
            to_inputs = [np.broadcast_to(sent.reshape(places), shape)]
            node_inputs = node.input_tensors[:1]  # of attention: queries, keys and values are one
        else:
            node_inputs = node.input_tensors
        for tensor, value in zip(node_inputs, to_inputs, strict=True):
            errors[id(tensor)] = errors.get(id(tensor), 0.0) + value
    return found | {"x": errors[id(model.inputs[0])]}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_by_hand(name):
    keras.utils.set_random_seed(1)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        plain = NETWORKS[name]()
        model = layers.align(plain, "direct")
        twin = layers.strip(model)
        twin.set_weights(plain.get_weights())
        x = draw((6, *plain.input_shape[1:])).astype("float64")
        labels = np.arange(6) % 4
        feedback = {
            w.name.removeprefix("backward_"): np.asarray(w) for w in model.layers[-1].weights
        }
        expected = by_hand(twin, feedback, x, labels)
        found = gradients(model, x, lambda y: LOSS(labels, y))
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        scale = np.abs(value).max() + 1e-3
        assert np.abs(found[path] - value).max() < 1e-6 * scale, path
    hidden = [v for path, v in expected.items() if "dense_output" not in path]
    assert all(np.any(value) for value in hidden)


def small(end=None, **options):
    keras.utils.set_random_seed(0)
    parts = [keras.Input((6, 6, 2)), keras.layers.Conv2D(3, 3, activation="relu", name="conv")]
    parts += [keras.layers.Flatten(), keras.layers.Dense(5, "tanh", name="hidden")]
    parts += [keras.layers.Dense(4, name="head", **options)]
    return keras.Sequential([*parts, *([end] if end else [])])


@pytest.mark.parametrize("variant", ["", *alignments.Direct.examples])
def test_eager_graph_and_xla_agree(variant):
    rule = alignments.Direct(**alignments.Direct.examples.get(variant, {}))
    model = layers.align(small(), rule)
    x, labels = draw((5, 6, 6, 2)), np.arange(5) % 4

    def step():
        return gradients(model, x, lambda y: LOSS(labels, y))

    eager = step()
    for jit in (False, True):
        for path, value in tf.function(step, jit_compile=jit)().items():
            np.testing.assert_allclose(value, eager[path], rtol=1e-4, atol=1e-6, err_msg=path)


def test_full_projections_have_an_error_for_every_feature():
    model = layers.align(small(), alignments.Direct(projection="full", density=0.5))
    kernels = {w.name: w.numpy() for w in model.layers[-1].weights}
    assert {name: b.shape for name, b in kernels.items()} == {
        "backward_conv": (4, 72),
        "backward_hidden": (4, 48),
        "backward_head": (4, 5),
    }
    for b in kernels.values():
        assert np.count_nonzero(b) == round(0.5 * b.size)
    x, labels = draw((5, 6, 6, 2)), np.arange(5) % 4
    dx = gradients(model, x, lambda y: LOSS(labels, y))["x"]
    p = tf.nn.softmax(model(x)).numpy()
    expected = ((p - np.eye(4)[labels]) / 5) @ kernels["backward_conv"]
    np.testing.assert_allclose(dx, expected.reshape(x.shape), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
@pytest.mark.parametrize("apart", [True, False])
def test_a_last_activation_stays_behind_the_logits(end, apart):
    """The error is taken at the logits, wherever the activation is written."""
    stock = small(keras.layers.Activation(end)) if apart else small(activation=end)
    with_logits = layers.align(small(), "direct")
    model = layers.align(stock, "direct")
    x, labels = draw((5, 6, 6, 2)), np.arange(5) % 4
    for source, target in ((with_logits, model),):
        by_name = {w.name + str(w.shape): w for w in source.weights}
        for weight in target.weights:
            weight.assign(by_name[weight.name + str(weight.shape)])
    onehot = np.eye(4, dtype="float32")[labels]

    def of_outputs(y):
        return (
            keras.losses.categorical_crossentropy(onehot, y)
            if end == "softmax"
            else (keras.losses.binary_crossentropy(onehot, y))
        )

    def of_logits(y):
        return of_outputs(getattr(tf.nn, end)(y))

    ours = gradients(model, x, lambda y: tf.reduce_mean(of_outputs(y)))
    theirs = gradients(with_logits, x, lambda y: tf.reduce_mean(of_logits(y)))
    for path, value in theirs.items():
        np.testing.assert_allclose(ours[path], value, rtol=1e-3, atol=1e-6, err_msg=path)


def test_an_activation_amid_the_end_is_refused():
    with pytest.raises(ValueError, match="ends in logits.*Received: 'head'"):
        layers.align(small(keras.layers.Reshape((2, 2)), activation="softmax"), "direct")


@pytest.mark.parametrize("points", ["layers", "blocks"])
def test_points_of_a_residual_network(points):
    model = models.get(
        "resnet20",
        input_shape=(8, 8, 3),
        num_classes=4,
        alignment={"name": "direct", "points": points},
    )
    stops = [layer for layer in model.layers if isinstance(layer, layers.StopError)]
    assert len(stops) == len(model.layers[-1].weights)
    # 19 convolutions, two projections or none, the head; or the stem, nine blocks, the head.
    convolutions = sum(hasattr(layer, "kernel") for layer in model.layers)
    assert len(stops) == (11 if points == "blocks" else convolutions)


def compiled_step(model):
    @tf.function(jit_compile=True)
    def step(x, labels):
        with tf.GradientTape() as tape:
            loss = LOSS(labels, model(x, training=True))
        return tape.gradient(loss, model.trainable_variables)

    return step


def test_the_compiled_step_has_no_convolution_for_an_error():
    x, labels = tf.zeros((2, 8, 8, 3)), tf.zeros((2,), tf.int32)
    counts = {}
    for rule in (None, "direct"):
        model = models.get("resnet20", input_shape=(8, 8, 3), num_classes=4, alignment=rule)

        counts[rule] = operations.count_xla(compiled_step(model), x, labels)
    forward = sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers)
    assert counts[None].convolutions == 3 * forward - 1
    assert counts["direct"].convolutions == 2 * forward


def test_files_and_going_back(tmp_path):
    model = layers.align(small(), alignments.Direct(density=0.5))
    x, labels = draw((5, 6, 6, 2)), np.arange(5) % 4
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    ours, theirs = (gradients(m, x, lambda y: LOSS(labels, y)) for m in (loaded, model))
    for path, value in theirs.items():
        np.testing.assert_allclose(ours[path], value, rtol=1e-6, atol=1e-7)
    stripped = layers.strip(model)
    kept = [layer.name for layer in stripped.layers if layer.name in ("conv", "hidden", "head")]
    assert kept == ["conv", "hidden", "head"]
    assert not any(isinstance(layer, layers.StopError) for layer in stripped.layers)
    assert stripped.layers[-1].name == "head"
    np.testing.assert_array_equal(stripped(x), model(x))
    symmetric = layers.align(model, "symmetric")
    assert len(layers.aligned_layers(symmetric)) == 3
    again = layers.align(model, "direct")
    np.testing.assert_array_equal(again(x), model(x))
    assert len(again.layers) == len(model.layers)
    assert model.get_layer("hidden").output.shape == (None, 5)


def test_a_model_of_ones_own():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense0, self.dense1 = keras.layers.Dense(6, "tanh"), keras.layers.Dense(3)
            self.stop, self.feedback = layers.StopError(), layers.DirectFeedback()

        def call(self, x):
            h = self.dense0(x)
            return self.feedback([self.dense1(self.stop(h)), h])

    keras.utils.set_random_seed(0)
    model = Net()
    model.compile("sgd", LOSS)
    x, labels = draw((8, 4)), np.arange(8) % 3
    model.fit(x, labels, verbose=0)
    found = gradients(model, x, lambda y: LOSS(labels, y))
    h = np.tanh(x @ model.dense0.kernel.numpy() + model.dense0.bias.numpy())
    e = (tf.nn.softmax(model(x)).numpy() - np.eye(3)[labels]) / 8
    delta = e @ model.feedback.weights[0].numpy() * (1 - h**2)
    np.testing.assert_allclose(found[model.dense0.kernel.path], x.T @ delta, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["direct", "frozen"])
def test_a_layer_alone_is_refused(name):
    for cls in (layers.Dense, layers.MultiHeadAttention):
        with pytest.raises(ValueError, match=f"rule of single layers. Received: '{name}'"):
            cls(4, 3, alignment=name) if cls is layers.MultiHeadAttention else cls(
                4, alignment=name
            )


@pytest.mark.parametrize("optimizer", ["adam", keras.optimizers.SGD(0.1, weight_decay=0.1)])
def test_frozen_trains_the_output_layer_alone(optimizer):
    keras.utils.set_random_seed(0)
    stock = models.get("resnet20", input_shape=(8, 8, 3), num_classes=4, l2=1e-3)
    model = layers.align(stock, "frozen")
    model.compile(optimizer, LOSS)
    before = {w.path: w.numpy() for w in model.weights}
    model.fit(draw((8, 8, 8, 3)), np.arange(8) % 4, epochs=2, verbose=0)
    moved = {w.path for w in model.weights if np.any(w.numpy() != before[w.path])}
    head = {w.path for w in model.layers[-1].weights}
    statistics = {path for path in before if "moving" in path}
    assert moved == head | statistics
