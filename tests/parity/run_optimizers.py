"""Golden cases of the update rules: recorded gradients, one step after another."""

import keras
import numpy as np

from neural_alignment import optimizers


class Recorded(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rates):
        self.rates = keras.ops.convert_to_tensor(rates)

    def __call__(self, step):
        return keras.ops.take(self.rates, keras.ops.cast(step, "int32"))


def run(case, inputs, golden):
    variable = keras.Variable(inputs["w0"], name="w")
    optimizer = _optimizer(case, inputs)
    optimizer.build([variable])

    step = _step(optimizer, variable)
    has_phase = isinstance(optimizer, optimizers.SWATS)
    values, phases, rates = [inputs["w0"]], [], []
    for gradient in inputs["grads"]:
        step(keras.ops.convert_to_tensor(gradient))
        values.append(_value(variable))
        if has_phase:
            phases.append(np.full(variable.shape, _value(optimizer.phases[0])))
            rates.append(np.full(variable.shape, _value(optimizer.lambdas[0])))
    outputs = {"w": np.stack(values)}
    if has_phase:
        outputs |= {"phase": np.stack(phases), "Lambda": np.stack(rates)}
    return outputs


def _value(variable):
    return keras.ops.convert_to_numpy(variable).copy()


def _step(optimizer, variable):
    def step(gradient):
        optimizer.apply([gradient], [variable])

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(step)
    return step


def _optimizer(case, inputs):
    kind, kwargs = case["optimizer"], dict(case["kwargs"])
    if "lr" in inputs:
        kwargs["learning_rate"] = Recorded(inputs["lr"])
    if kind.startswith("build_noisy_optimizer("):
        # build_noisy_optimizer(name, distribution, variance=number)
        name, distribution, variance = kind[:-1].partition("(")[2].split(", ")
        return optimizers.Noisy(
            optimizers.get(name, **_renamed(name, kwargs)),
            distribution=distribution,
            variance=float(variance.rpartition("=")[2]),
        )
    if kind == "SWATSOptimizer":
        name = "swrats" if kwargs.pop("rectified_adam", False) else "swats"
    else:
        name = _NAMES[kind]
    return optimizers.get(name, **_renamed(name, kwargs))


def _renamed(name, kwargs):
    if name == "momentum":
        kwargs = {"use_nesterov": False} | kwargs
    names = {"use_nesterov": "nesterov", "beta1": "beta_1", "beta2": "beta_2", "decay": "rho"}
    return {names.get(key, key): value for key, value in kwargs.items()}


_NAMES = {
    "RAdamOptimizer": "radam",
    "tf.train.GradientDescentOptimizer": "gd",
    "tf.train.MomentumOptimizer": "momentum",
    "tf.train.AdamOptimizer": "adam",
    "tf.train.AdagradOptimizer": "adagrad",
    "tf.train.RMSPropOptimizer": "rmsprop",
}
