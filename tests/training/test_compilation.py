"""`--jit_compile`: what auto chooses, and what cannot be compiled."""

from __future__ import annotations

import types

import keras
import pytest
import tensorflow as tf

from neural_alignment.config import UsageError
from neural_alignment.layers import Conv2D, Dense
from neural_alignment.training.compilation import is_compiled


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
