"""The ways models come about, and what the tests of conversion compare."""

import copy
import pickle

import keras
import numpy as np


def as_built(model, folder):
    del folder
    return model


def from_keras_file(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def from_h5_file(model, folder):
    model.save(folder / "model.h5")
    return keras.models.load_model(folder / "model.h5")


def deep_copied(model, folder):
    del folder
    return copy.deepcopy(model)


def unpickled(model, folder):
    del folder
    return pickle.loads(pickle.dumps(model))


def from_json(model, folder):
    del folder
    made = keras.models.model_from_json(model.to_json())
    made.set_weights(model.get_weights())
    return made


def compiled(model, folder):
    """Compiled with what Keras finds in no file."""
    del folder

    class Optimizer(keras.optimizers.SGD):
        pass

    class Metric(keras.metrics.Mean):
        def __init__(self, number):
            super().__init__()

    model.compile(
        Optimizer(0.1),
        loss=lambda y, p: keras.ops.mean(p) - keras.ops.mean(y),
        metrics=[Metric(3)] * len(model.outputs),
    )
    return model


def cut_out(model, folder):
    del folder
    return keras.Model(model.inputs, model.outputs, name="cut")


ORIGINS = {
    origin.__name__: origin
    for origin in (
        as_built,
        from_keras_file,
        from_h5_file,
        deep_copied,
        unpickled,
        from_json,
        compiled,
        cut_out,
    )
}


# Models that Keras cannot bring about in a way, whatever is done with them.
_NO_CONFIG_OF_SHARING = ("from_keras_file", "from_h5_file", "deep_copied", "unpickled", "from_json")
NOT_IN_KERAS: dict[str, tuple[str, ...]] = {
    "operators": ("from_h5_file",),
    "masks": ("from_h5_file",),
    "masking": ("from_h5_file",),
    "shared": _NO_CONFIG_OF_SHARING,
    "nested": _NO_CONFIG_OF_SHARING,
    "dictionaries": ("from_h5_file",),
    "own_train_step": ("from_h5_file",),
    "own_train_step_stack": ("from_h5_file",),
    "frozen": ("from_h5_file",),
    "noise": ("from_h5_file",),
    "low_rank_inside": ("from_h5_file", "from_json"),
    "adapted": ("from_h5_file",),
    "transformer": ("from_h5_file",),
    "residual": ("from_h5_file",),
}
if keras.__version__.startswith("3.8."):  # knows no Cast in an .h5 file
    NOT_IN_KERAS |= dict.fromkeys(("policies", "policy_maps"), ("from_h5_file",))


def perturb(model):
    """Values that no initializer gives, to every float weight."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(weight.dtype)):
            value = array(weight).astype("float32")
            weight.assign(value + generator.uniform(0.05, 0.2, value.shape))


def batch(model, size=3):
    """Inputs for a model."""
    generator = np.random.default_rng(2)

    def draw(tensor):
        shape = (size, *tensor.shape[1:])
        if tensor.dtype.startswith("int"):
            return generator.integers(0, 5, size=shape)
        return generator.normal(size=shape).astype(tensor.dtype)

    single = isinstance(model, keras.Sequential)
    return keras.tree.map_structure(draw, model.inputs[0] if single else model.input)


def array(variable):
    """What a variable holds."""
    return np.array(keras.ops.convert_to_numpy(variable.value))


def values(model):
    """Everything a model holds, by its place."""
    arrays = [array(variable) for variable in model.variables]
    return [(array.dtype, array.shape, array.tobytes()) for array in arrays]


def outputs(model, x):
    """All outputs of a model as arrays."""
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


# On one thread PyTorch takes other kernels for a convolution by how its input lies in memory.
ROUNDING = 1e-6 if keras.backend.backend() == "torch" else 0.0


def difference(model, other, x):
    """The largest difference between the outputs of two models."""
    pairs = zip(outputs(model, x), outputs(other, x), strict=True)
    return max(np.max(np.abs(a.astype("float64") - b.astype("float64"))) for a, b in pairs)
