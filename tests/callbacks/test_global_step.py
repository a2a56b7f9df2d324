"""One clock: the layers see the number of updates, whatever updates the weights."""

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers, optimizers
from neural_alignment.callbacks import AlignmentLosses, GlobalStep
from tests.callbacks.networks import X, fit, nested, value

pytestmark = pytest.mark.backend

BACKEND = keras.backend.backend()


@keras.saving.register_keras_serializable("tests")
class Step(keras.optimizers.schedules.LearningRateSchedule):
    """The step itself."""

    def __call__(self, step):
        return keras.ops.cast(step, "float32")

    def get_config(self):
        return {}


def sgd(accumulate=None):
    return keras.optimizers.SGD(0.0, gradient_accumulation_steps=accumulate)


def ours(name, accumulate=None):
    return optimizers.get(name, learning_rate=0.0, gradient_accumulation_steps=accumulate)


def scaled(optimizer):
    # 1 is never too large, so that no batch is left out.
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)


def routed(accumulate=None):
    return optimizers.RoutedOptimizer(ours("momentum", accumulate), ours("adam", accumulate))


def noisy(accumulate=None):
    return optimizers.Noisy(ours("gd", accumulate), variance=1.0)


OPTIMIZERS = {
    "keras": sgd,
    "ours": lambda accumulate: ours("momentum", accumulate),
    "noisy": noisy,
    "routed": routed,
    "routed and noisy": lambda accumulate: optimizers.RoutedOptimizer(
        noisy(accumulate), ours("radam", accumulate)
    ),
    "scaled": lambda accumulate: scaled(sgd(accumulate)),
    "scaled and noisy": lambda accumulate: scaled(noisy(accumulate)),
    "scaled and routed": lambda accumulate: scaled(routed(accumulate)),
}
if hasattr(keras.optimizers, "MultiOptimizer"):
    OPTIMIZERS["several"] = lambda accumulate: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(sgd(accumulate), {".*backward_kernel": sgd(accumulate)})
    )


def model(optimizer, alignment=None, **options):
    keras.utils.set_random_seed(0)
    rule = alignment or alignments.Symmetric(self_coef=Step(), decay_coef=0.0)
    layer = layers.Dense(3, alignment=rule, **options.pop("layer", {}))
    made = keras.Sequential([keras.Input((5,)), layer])
    made.compile(optimizer, "mse", **options)
    return made


class Steps(keras.callbacks.Callback):
    """What the schedule was in each batch; the weights stand still, so R tells."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        layer = self.model.layers[0]
        one = -np.sum(value(layer.kernel) * value(layer.backward_kernel))
        self.seen.append(round(logs["alignment_loss"] / one, 3))


def steps_of(made, epochs=6, **options):
    """The step of each batch, one an epoch."""
    x = X[:2]
    steps = Steps()
    made.fit(
        x,
        np.zeros((2, 3)),
        epochs=epochs,
        verbose=0,
        callbacks=[GlobalStep(), AlignmentLosses(), steps],
        **options,
    )
    return steps.seen


@pytest.mark.parametrize(
    ("name", "accumulate"),
    [(name, 2) for name in OPTIMIZERS]
    + [pytest.param(name, None, marks=pytest.mark.slow) for name in OPTIMIZERS],
)
def test_updates_are_counted(name, accumulate):
    if BACKEND == "torch" and accumulate and name == "several":
        pytest.skip("Keras applies it so only in graphs")
    made = model(OPTIMIZERS[name](accumulate))
    assert steps_of(made) == [batch // (accumulate or 1) for batch in range(6)]


@pytest.mark.parametrize("accumulate", [None, 2])
@pytest.mark.parametrize("jit_compile", [True, False])
def test_compiled_or_not_and_eagerly(accumulate, jit_compile):
    if BACKEND == "torch" and jit_compile:
        pytest.skip("torch.compile takes minutes")
    expected = [batch // (accumulate or 1) for batch in range(4)]
    assert steps_of(model(sgd(accumulate), jit_compile=jit_compile), 4) == expected
    assert steps_of(model(sgd(accumulate), run_eagerly=True), 4) == expected


@pytest.mark.skipif(BACKEND == "torch", reason="Keras allows one step an execution there")
@pytest.mark.parametrize("accumulate", [None, 2])
def test_several_steps_an_execution(accumulate):
    made = model(sgd(accumulate), steps_per_execution=4)
    seen = steps_of(made, 2, batch_size=1, steps_per_epoch=None)
    # Two batches an epoch: the mean of their steps.
    assert seen == ([0.5, 2.5] if accumulate is None else [0.0, 1.0])


@pytest.mark.parametrize("accumulate", [None, 2])
def test_mixed_float16(accumulate):
    """Keras wraps the optimizer; its scale starts so high that batches are left out."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        made = model(ours("gd", accumulate))
    finally:
        keras.config.set_dtype_policy("float32")
    seen = steps_of(made, 12)
    inner = getattr(made.optimizer, "inner_optimizer", made.optimizer)
    assert seen[0] == 0.0 and np.all(np.diff(seen) >= 0.0)
    assert seen[-1] == (int(value(inner._iterations)) - 1) // (accumulate or 1)


@pytest.mark.parametrize("accumulate", [None, 2])
def test_a_loaded_model_goes_on(accumulate, tmp_path):
    made = model(routed(accumulate))
    whole = steps_of(model(routed(accumulate)), 8)
    before = steps_of(made, 4)
    made.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert before + steps_of(loaded, 4) == whole


def test_learning_rates_see_the_same_step():
    schedule = optimizers.rate_scheduler.ManualDrop(before=1.0, after=0.0, boundary_step=0)
    made = model(
        optimizers.get("gd", learning_rate=schedule, gradient_accumulation_steps=2),
        alignments.Feedback(),
    )
    seen = []
    for _ in range(3):
        for _ in range(2):
            made.train_on_batch(X, np.zeros((8, 3)))
        seen.append(value(made.layers[0].kernel).copy())
    np.testing.assert_array_equal(seen[1], seen[0])
    np.testing.assert_array_equal(seen[2], seen[0])


def test_parts_that_update_apart_are_refused():
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has none")
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(sgd(2), {".*backward_kernel": sgd(3)})
    )
    with pytest.raises(ValueError, match="Expected optimizers that update together"):
        steps_of(model(several))


def test_an_optimizer_that_does_not_count_is_refused():
    class Silent(keras.optimizers.SGD):
        def apply(self, grads, trainable_variables=None):
            super().apply(grads, trainable_variables)
            self._iterations.assign(0)

    with pytest.raises(ValueError, match="Expected an optimizer whose `iterations` count"):
        steps_of(model(Silent(0.0)))


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_model_with_nothing_to_train_makes_no_update():
    made = model(keras.optimizers.SGD(0.0))
    made.trainable = False
    made.compile("sgd", "mse")
    assert set(steps_of(made)) <= {0}


def test_without_an_optimizer_there_is_no_step():
    callback = GlobalStep()
    callback.set_model(keras.Sequential([keras.Input((5,)), layers.Dense(2)]))
    with pytest.raises(ValueError, match="Expected a model compiled with a Keras optimizer"):
        callback.on_train_begin()


def schedule():
    """1 at step 0, then 1/2, then 0."""
    return keras.optimizers.schedules.PolynomialDecay(1.0, 2, 0.0)


def test_a_schedule_in_a_plain_fit_is_refused_with_the_remedy():
    with pytest.raises(ValueError) as error:
        fit(nested(alignments.Symmetric(self_coef=schedule())))
    assert "Expected a global step for the schedule self_coef=" in str(error.value)
    assert "`neural_alignment.callbacks.GlobalStep()` to the callbacks" in str(error.value)


def test_after_training_and_after_a_failure_the_callback_leaves_nothing():
    made = nested(alignments.Symmetric(self_coef=schedule()))
    fit(made, GlobalStep())
    assert all(layer._step_source is None for layer in layers.aligned_layers(made))
    made.compile("sgd", made.loss, run_eagerly=True)
    with pytest.raises(ValueError, match="Expected a global step"):
        fit(made)

    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("stop")

    made = model(sgd())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stop"):
            made.fit(
                X, np.zeros((8, 3)), verbose=0, callbacks=[GlobalStep(), AlignmentLosses(), Fails()]
            )
    assert steps_of(made, 2, batch_size=2) == [2.0, 3.0]


def test_the_noise_of_two_updates_differs():
    made = model(noisy(), alignments.Feedback())
    made.optimizer.learning_rate = 0.1
    before = value(made.layers[0].kernel).copy()
    changes = []
    for _ in range(2):
        made.train_on_batch(np.zeros((8, 5), "float32"), np.zeros((8, 3)))
        after = value(made.layers[0].kernel).copy()
        changes.append(after - before)
        before = after
    assert np.all(changes[0] != changes[1])
