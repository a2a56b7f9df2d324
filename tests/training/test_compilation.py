"""`--jit_compile`: what auto chooses, and what cannot be compiled."""

from __future__ import annotations

import types

import keras
import pytest
import tensorflow as tf

from neural_alignment import config
from neural_alignment.cli import command
from neural_alignment.config import UsageError
from neural_alignment.exits import FAILED
from neural_alignment.layers import Conv2D, Dense
from neural_alignment.messages import uncompilable
from neural_alignment.models import registry
from neural_alignment.training import compilation
from neural_alignment.training.compilation import is_compiled
from tests.presets.support import parse


def strategy_of(*devices):
    """What a strategy says of its devices; there is no GPU to make one with."""
    extended = types.SimpleNamespace(worker_devices=devices)
    return types.SimpleNamespace(extended=extended, num_replicas_in_sync=len(devices))


def model_of(*layers):
    return keras.Sequential([keras.Input((8, 8, 4)), *layers])


def dense():
    return keras.layers.Flatten(), Dense(3)


CPU, GPU = "/job:localhost/replica:0/task:0/device:CPU:{}", "/device:GPU:{}"


@pytest.mark.parametrize("layers", [dense(), (Conv2D(2, 3), *dense())], ids=len)
@pytest.mark.parametrize("count", [1, 2])
def test_auto_by_device(count, layers):
    model = model_of(*layers)
    on_cpu = strategy_of(*map(CPU.format, range(count)))
    on_gpu = strategy_of(*map(GPU.format, range(count)))
    assert not is_compiled("auto", on_cpu, model)
    assert is_compiled("auto", on_gpu, model)
    for strategy in (on_cpu, on_gpu):
        assert is_compiled("true", strategy, model)
        assert not is_compiled("false", strategy, model)


@pytest.mark.parametrize("choice", ["auto", "true", "false"])
def test_a_tpu_compiles_whatever_is_asked_for(choice, monkeypatch):
    monkeypatch.setattr(compilation, "compiles_itself", lambda strategy: True)
    assert is_compiled(choice, strategy_of("/device:TPU:0"), model_of(*dense()))


@pytest.mark.parametrize("devices", [["CPU:0"], ["CPU:0", "CPU:1"]])
def test_auto_on_real_strategies(devices):
    strategy = tf.distribute.MirroredStrategy(devices)
    assert not is_compiled("auto", strategy, model_of(*dense()))


def test_synchronized_normalization_is_refused_by_name():
    norm = keras.layers.BatchNormalization(synchronized=True, name="together")
    model = model_of(norm, *dense())
    two = strategy_of(*map(GPU.format, range(2)))
    assert not is_compiled("auto", two, model)
    with pytest.raises(UsageError, match=r"--jit_compile: expected .* Received: true, .*together"):
        is_compiled("true", two, model)
    assert is_compiled("true", strategy_of(GPU.format(0)), model)


class OnTheHost(keras.layers.Layer):
    """What XLA has no code for."""

    def call(self, x):
        y = tf.numpy_function(lambda values: values, [x], tf.float32)
        y.set_shape(x.shape)
        return y


def on_the_host(input_shape, num_classes=10, alignment=None):
    inputs = keras.Input(tuple(input_shape))
    x = OnTheHost(name="host")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, Dense(num_classes, alignment=alignment)(x))


def test_what_xla_cannot_compile_is_named_with_the_remedy(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(registry._BUILDERS, "on_the_host", on_the_host)
    flags = ("--dataset=digits", "--model=on_the_host", "--alignment=feedback", "--max_epochs=0.1")
    made = [
        config.read(parse(*flags, f"--jit_compile={choice}", f"--workdir={tmp_path / choice}"))
        for choice in ("true", "false")
    ]
    assert command._run("train", made[0]) == FAILED
    told = capfd.readouterr().err
    assert "--jit_compile: expected a model that XLA can compile" in told
    assert "PyFunc at " in told and "/host" in told and "--jit_compile=false" in told
    assert command._run("train", made[1]) == 0


def test_other_errors_are_not_xla_s():
    assert uncompilable(tf.errors.InvalidArgumentError(None, None, "Incompatible shapes")) is None
