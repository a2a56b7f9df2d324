"""Models as users build them, for the tests of conversion."""

from collections.abc import Callable

import keras
import numpy as np

from neural_alignment import layers

K = keras.layers


@keras.saving.register_keras_serializable(package="tests")
class Block(keras.layers.Layer):
    """A custom layer that holds two Dense."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = K.Dense(units, activation="tanh")
        self.second = K.Dense(units)

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((*input_shape[:-1], self.units))

    def call(self, inputs):
        return self.second(self.first(inputs))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class BlockModel(keras.Model):
    """A subclassed model that holds two Dense, built when it is called."""

    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = K.Dense(units, activation="tanh")
        self.second = K.Dense(units)

    def call(self, inputs):
        return self.second(self.first(inputs))

    def get_config(self):
        return {"name": self.name, "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.layers.Layer):
    """A custom layer with weights that have no names."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")
        self.shift = self.add_weight(shape=(input_shape[-1],), initializer="zeros")

    def call(self, inputs):
        return inputs * self.scale + self.shift


@keras.saving.register_keras_serializable(package="tests")
class Positions(keras.layers.Layer):
    """Adds a vector a position, after a vector of its own."""

    def build(self, input_shape):
        _, length, features = input_shape
        self.token = self.add_weight(shape=(1, 1, features), name="token")
        self.positions = self.add_weight(shape=(1, length + 1, features), name="positions")

    def call(self, inputs):
        size = keras.ops.shape(inputs)[0]
        token = keras.ops.broadcast_to(self.token, (size, 1, self.token.shape[-1]))
        return keras.ops.concatenate([token, inputs], axis=1) + self.positions

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[1] + 1, input_shape[2])


@keras.saving.register_keras_serializable(package="tests")
class Trained(keras.Model):
    """A functional model with a training step of its own."""

    def train_step(self, *data):
        return super().train_step(*data)


@keras.saving.register_keras_serializable(package="tests")
class TrainedStack(keras.Sequential):
    """A Sequential model with a training step of its own."""

    def train_step(self, *data):
        return super().train_step(*data)


def stack():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            K.Conv2D(3, 3, padding="same", activation="relu", name="first"),
            K.BatchNormalization(name="norm"),
            K.Flatten(name="flat"),
            K.Dropout(0.5, name="drop"),
            K.Dense(4, name="head"),
        ],
        name="net",
    )


def aligned_stack():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(3, 3, activation="relu", alignment="symmetric"),
            K.Flatten(),
            layers.Dense(6, activation="relu", alignment="activation"),
            layers.Dense(4, alignment={"name": "mirror", "input_distribution": "normal"}),
        ],
        name="net",
    )


def operators():
    inputs = keras.Input((6,))
    h = K.Dense(6)(inputs)
    h = keras.ops.relu(h + inputs) * 2.0 - 1.0
    h = keras.ops.concatenate([h[:, :3], h[:, 3:] / 3.0, keras.ops.mean(h, 1, keepdims=True)], 1)
    h = keras.ops.reshape(K.Dense(4)(h), (-1, 2, 2))
    return keras.Model(inputs, keras.ops.einsum("bij,bkj->bik", h, h))


def masks():
    tokens = keras.Input((7,), dtype="int32")
    h = K.Embedding(5, 6, mask_zero=True)(tokens)
    h = K.Dense(6)(h) + h
    h = K.LSTM(4, return_sequences=True)(h)
    h = K.GlobalAveragePooling1D()(h)
    return keras.Model(tokens, K.Dense(2)(h))


def masking():
    inputs = keras.Input((5, 3))
    h = K.Masking(0.0)(inputs)
    h = K.GRU(4)(K.Dense(3)(h))
    return keras.Model(inputs, K.Dense(2)(h))


def two_towers():
    def tower(name):
        inputs = keras.Input((6,), name="image")
        h = K.Dense(5, activation="relu", name="a")(inputs)
        return keras.Model(inputs, K.Dense(4, name="b")(h), name=name)

    left, right = keras.Input((6,)), keras.Input((6,))
    outputs = K.Dense(2)(K.Concatenate()([tower("l")(left), tower("r")(right)]))
    return keras.Model([left, right], outputs)


def shared():
    inputs = keras.Input((5,))
    dense = K.Dense(5, activation="tanh")
    inner = keras.Sequential([keras.Input((5,)), dense, K.Dense(5, name="inside")])
    h = dense(inner(dense(inputs)))
    return keras.Model(inputs, [inner(h), h])


def nested():
    inner_input = keras.Input((4,))
    innermost = keras.Sequential([K.Dense(3), Scaled(), K.Dense(4)], name="innermost")
    inner = keras.Model(inner_input, innermost(inner_input) + inner_input, name="inner")
    return keras.Sequential([keras.Input((4,)), inner, K.Dense(4), inner, innermost], name="outer")


def dictionaries():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((4,), name="b")}
    h = K.Dense(4)(inputs["a"]) + inputs["b"]
    return keras.Model(inputs, {"sum": K.Dense(2)(h), "h": h})


def wrappers():
    inputs = keras.Input((4, 6, 3))
    h = K.TimeDistributed(K.Conv1D(4, 3), name="each")(inputs)
    h = K.TimeDistributed(keras.Sequential([K.Flatten(), K.Dense(5)]))(h)
    h = K.Bidirectional(K.LSTM(3, return_sequences=True), name="both")(h)
    h = K.Bidirectional(K.GRU(2), merge_mode="sum")(h)
    return keras.Model(inputs, K.Dense(2)(h))


def recurrent():
    inputs = keras.Input((4, 3))
    h = K.RNN([K.LSTMCell(3), K.GRUCell(4)], return_sequences=True)(inputs)
    h = K.SimpleRNN(3, return_sequences=True)(h)
    return keras.Model(inputs, K.Dense(2)(K.LSTM(3)(h)))


def custom_layers():
    inputs = keras.Input((5,))
    return keras.Model(inputs, K.Dense(2)(Block(4, name="block")(Scaled()(K.Dense(5)(inputs)))))


def subclassed_inside():
    inputs = keras.Input((5,))
    return keras.Model(inputs, K.Dense(2)(BlockModel(4, name="block")(inputs)))


def own_train_step():
    inputs = keras.Input((5,))
    return Trained(inputs, K.Dense(2)(K.Dense(4, activation="relu")(inputs)))


def own_train_step_stack():
    return TrainedStack([keras.Input((5,)), K.Dense(4, activation="relu"), K.Dense(2)])


def frozen():
    model = stack()
    model.get_layer("first").trainable = False
    inner = keras.Sequential([keras.Input((4,)), K.Dense(3), K.BatchNormalization()], name="inner")
    inner.trainable = False
    inner.layers[1].trainable = True
    return keras.Sequential([keras.Input((8, 8, 2)), *model.layers, inner, K.Dense(2)])


def policies():
    inputs = keras.Input((6,))
    h = K.Dense(5, dtype="mixed_float16", kernel_regularizer="l2")(inputs)
    h = K.Dense(4, dtype="mixed_bfloat16", bias_constraint="non_neg")(h)
    h = K.Dense(4, activity_regularizer="l1")(h)
    # JAX has no float64 unless its process says so.
    last = "float32" if keras.backend.backend() == "jax" else "float64"
    return keras.Model(inputs, K.Dense(2, dtype=last)(h))


def noise():
    inputs = keras.Input((6,))
    h = K.GaussianNoise(0.5)(K.Dropout(0.3, seed=3)(K.Dense(5)(inputs)))
    return keras.Model(inputs, K.Dense(2)(K.SpatialDropout1D(0.2)(h[:, None, :])))


def low_rank():
    model = keras.Sequential([keras.Input((6,)), K.Dense(5), K.Dense(3)])
    model.layers[0].enable_lora(2)
    weights = model.layers[0].lora_kernel_b
    weights.assign(np.random.default_rng(0).normal(size=weights.shape))
    return model


def low_rank_inside():
    inputs = keras.Input((4, 6))
    attention = K.MultiHeadAttention(2, 3)
    model = keras.Model(inputs, K.Dense(2)(attention(inputs, inputs)))
    attention.query_dense.enable_lora(2)
    return model


def policy_maps():
    policies = keras.dtype_policies.DTypePolicyMap("mixed_bfloat16")
    inputs = keras.Input((4, 6))
    h = K.MultiHeadAttention(2, 3, dtype=policies)(inputs, inputs)
    return keras.Model(inputs, K.Dense(2, dtype=policies)(h))


def adapted():
    data = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4)).astype("float32")
    normalization, bins = K.Normalization(), K.Discretization(num_bins=3)
    normalization.adapt(data)
    bins.adapt(data)
    inputs = keras.Input((4,))
    h = keras.ops.concatenate([normalization(inputs), keras.ops.cast(bins(inputs), "float32")], 1)
    return keras.Model(inputs, K.Dense(2)(h))


def u_net():
    def double(h, filters):
        for _ in range(2):
            h = K.Conv2D(filters, 3, padding="same", use_bias=False)(h)
            h = K.ReLU()(K.BatchNormalization()(h))
        return h

    inputs = keras.Input((16, 16, 1))
    skips, h = [], inputs
    for filters in (4, 6):
        h = double(h, filters)
        skips.append(h)
        h = K.MaxPooling2D()(h)
    h = double(h, 8)
    for filters, skip in zip((6, 4), reversed(skips), strict=True):
        h = K.Concatenate()([K.UpSampling2D()(h), skip])
        h = double(h, filters)
    return keras.Model(inputs, K.Conv2D(1, 1, activation="sigmoid")(h))


def transformer():
    inputs = keras.Input((12, 12, 3))
    h = K.Conv2D(8, 4, strides=4)(inputs)
    h = Positions()(K.Reshape((9, 8))(h))
    for _ in range(2):
        normal = K.LayerNormalization()(h)
        h = h + K.MultiHeadAttention(2, 4, dropout=0.1)(normal, normal)
        h = h + K.Dense(8)(K.Dense(16, activation="gelu")(K.LayerNormalization()(h)))
    return keras.Model(inputs, K.Dense(3)(K.LayerNormalization()(h)[:, 0]))


def residual():
    inputs = keras.Input((8, 8, 3))
    h = K.SeparableConv2D(4, 3, padding="same", name="separable")(inputs)
    h = K.DepthwiseConv2D(3, padding="same", name="depthwise")(h) + h
    h = K.Conv2DTranspose(3, 2, strides=2, name="up")(K.PReLU()(h))
    return keras.Model(inputs, K.Dense(2)(K.GlobalAveragePooling2D()(h)))


MODELS: dict[str, Callable[[], keras.Model]] = {
    build.__name__: build
    for build in (
        stack,
        aligned_stack,
        operators,
        masks,
        masking,
        two_towers,
        shared,
        nested,
        dictionaries,
        wrappers,
        recurrent,
        custom_layers,
        subclassed_inside,
        own_train_step,
        own_train_step_stack,
        frozen,
        policies,
        noise,
        low_rank,
        low_rank_inside,
        policy_maps,
        adapted,
        u_net,
        transformer,
        residual,
    )
}
