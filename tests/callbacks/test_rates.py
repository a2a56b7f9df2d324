"""Learning rates that drive B apart are warned of, and those are they that do."""

import warnings

import keras
import numpy as np
import pytest

from neural_alignment import alignments, callbacks, layers, optimizers
from neural_alignment.callbacks import rates
from neural_alignment.optimizers import stability

pytestmark = pytest.mark.backend

# Largest rate * curvature for which descent converges.
OPTIMIZERS = {
    "gd": (lambda rate: optimizers.get("gd", learning_rate=rate), 2.0),
    "sgd": (lambda rate: keras.optimizers.SGD(rate), 2.0),
    "heavy ball": (lambda rate: keras.optimizers.SGD(rate, momentum=0.9), 3.8),
    "Nesterov": (lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True), 3.8 / 2.8),
    "momentum": (lambda rate: optimizers.get("momentum", learning_rate=rate), 3.8 / 2.8),
    "scaled": (lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(rate)), 2.0),
    "routed": (
        lambda rate: optimizers.RoutedOptimizer(
            optimizers.get("gd", learning_rate=0.0), optimizers.get("gd", learning_rate=rate)
        ),
        2.0,
    ),
}
DECAY = 20.0


def fit(optimizer, rule, callback, steps=200):
    keras.utils.set_random_seed(0)
    layer = layers.Dense(2, alignment=rule)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(optimizer, "mse")
    x = np.zeros((steps, 3), "float32")  # J's gradient for W is 0: only R moves anything
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", alignments.AlignmentWarning)
        model.fit(x, x[:, :2], batch_size=1, verbose=0, callbacks=[callback])
    kernels = map(keras.ops.convert_to_numpy, (layer.backward_kernel, layer.kernel))
    apart = float(np.max(np.abs(np.subtract(*kernels))))
    return apart, [str(one.message) for one in told if one.category is alignments.AlignmentWarning]


@pytest.mark.parametrize("share", [0.95, 1.05])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_diverges_is_warned_of(name, share):
    make, limit = OPTIMIZERS[name]
    rate = share * limit / (2.0 * DECAY)
    rule = alignments.Symmetric(decay_coef=DECAY, self_coef=2.0 * DECAY)
    apart, told = fit(make(rate), rule, callbacks.GlobalStep())
    if share < 1.0:
        assert apart < 1.0 and not told
    else:
        assert not apart < 1.0
        (message,) = told
        assert f"decay_coef={DECAY:g}" in message and f"learning_rate={rate:g}" in message


@pytest.mark.parametrize("callback", [callbacks.AlignmentMetrics, callbacks.AlignmentLosses])
def test_every_callback_warns(callback):
    _, told = fit(keras.optimizers.SGD(0.1), "symmetric", callback(), steps=1)
    assert len(told) == 1


class Silent(keras.Model):
    """A model whose call says nothing of training to its layers, or says it itself."""

    def __init__(self, rule, training):
        super().__init__()
        self.dense = layers.Dense(2, alignment=rule, name="it")
        self.told = {} if training is None else {"training": training}

    def call(self, inputs):
        return self.dense(inputs, **self.told)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("make", [callbacks.GlobalStep, callbacks.AlignmentMetrics,
                                  callbacks.AlignmentLosses])  # fmt: skip
@pytest.mark.parametrize(
    ("rule", "training", "warned"),
    [
        ("mirror", None, True),
        ("mirror", True, False),
        ("feedback", None, False),
        ("moving_average", None, True),
        ("moving_average", True, False),
    ],
)
def test_a_call_without_training_has_no_r_and_is_told(make, rule, training, warned):
    model = Silent(rule, training)
    model.compile("sgd", "mse")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", alignments.AlignmentWarning)
        model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=[make()])
    found = [str(one.message) for one in told if "takes no `training`" in str(one.message)]
    assert bool(found) == warned and all("Silent.call" in one and "R of it" in one for one in found)


class FineTuned(keras.Model):
    """As fine-tuning has it, whose base keeps its BatchNorm in inference."""

    def __init__(self, base, head, training):
        super().__init__()
        self.base, self.head = base, head
        self.told = {} if training is None else {"training": training}

    def call(self, inputs, training=None):
        return self.head(self.base(inputs, **{"training": training} | self.told), training=training)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("make", [callbacks.GlobalStep, callbacks.AlignmentMetrics,
                                  callbacks.AlignmentLosses])  # fmt: skip
@pytest.mark.parametrize("training", [False, None])
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("rule", ["symmetric", "moving_average", "feedback"])
def test_a_base_that_is_called_as_in_inference_is_told(make, rule, trainable, training):
    base = keras.Sequential([keras.Input((3,)), layers.Dense(2, alignment=rule, name="it")])
    base.name, base.trainable = "base", trainable
    model = FineTuned(base, layers.Dense(2, alignment=rule, name="head"), training)
    model.compile("sgd", "mse", run_eagerly=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", alignments.AlignmentWarning)
        model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0, callbacks=[make()])
    found = [str(one.message) for one in told if "called with training=False" in str(one.message)]
    assert len(found) == (trainable and training is False and rule != "feedback")
    assert all("R of base/it is" in text for text in found)


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.02])
@pytest.mark.parametrize("name", ["gd", "sgd", "heavy ball", "Nesterov", "momentum"])
def test_how_far_b_goes_past_w(name, rate):
    keras.utils.set_random_seed(0)
    layer = layers.Dense(60, alignment="symmetric")
    model = keras.Sequential([keras.Input((60,)), layer])
    optimizer = OPTIMIZERS[name][0](rate)
    model.compile(optimizer, "mse")
    ratios = []

    class Ratio(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            both = map(keras.ops.convert_to_numpy, (layer.backward_kernel, layer.kernel))
            b, w = (float(np.linalg.norm(kernel)) for kernel in both)
            ratios.append(b / w)

    x = np.zeros((40, 60), "float32")
    model.fit(x, x, batch_size=1, verbose=0, callbacks=[Ratio()])
    swing = stability.swing(layer.alignment, optimizer, rate)
    # Two draws are not quite at right angles, nor of one size.
    assert max(1.0, *ratios) == pytest.approx(swing, rel=0.03)
    assert (swing == 1.0) == (name in ("gd", "sgd"))


@pytest.mark.parametrize(
    ("depth", "optimizer", "rule", "warns"),
    [
        (20, keras.optimizers.SGD(0.02, 0.9, nesterov=True), "symmetric", True),
        (10, keras.optimizers.SGD(0.02, 0.9), "symmetric", True),
        (5, keras.optimizers.SGD(0.02, 0.9), "symmetric", False),
        (20, keras.optimizers.SGD(0.02), "symmetric", False),
        (20, keras.optimizers.Adam(0.02), "symmetric", False),
        (20, keras.optimizers.SGD(0.02, 0.9), "feedback", False),
        (
            20,
            optimizers.RoutedOptimizer(
                keras.optimizers.SGD(0.02, 0.9), optimizers.get("gd", learning_rate=0.02)
            ),
            "symmetric",
            False,
        ),
    ],
)
def test_a_swing_that_many_layers_multiply_is_warned_of(depth, optimizer, rule, warns):
    hidden = [layers.Dense(4, alignment=rule) for _ in range(depth)]
    model = keras.Sequential([keras.Input((4,)), *hidden])
    model.compile(optimizer, "mse")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", alignments.AlignmentWarning)
        rates.check(model)
    found = [str(one.message) for one in told if one.category is alignments.AlignmentWarning]
    assert [f"errors through {depth} layers" in message for message in found] == [True] * warns


COMPOSITE = {"name": "product", "factored": False}
MIXED = {"name": "mixed", "fractions": "product(factored=false):0.5,feedback:0.5"}
LINEAR = {
    "sgd": (lambda: keras.optimizers.SGD(0.1, nesterov=True, momentum=0.9), True),
    "decay": (lambda: keras.optimizers.SGD(0.1, weight_decay=0.1), True),
    "ours": (lambda: optimizers.get("momentum", learning_rate=0.1), True),
    "scaled": (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), True),
    "adam": (lambda: keras.optimizers.Adam(0.1), False),
    "scaled adam": (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), False),
    "clipping": (lambda: keras.optimizers.SGD(0.1, global_clipnorm=1.0), False),
    "ours, clipping": (lambda: optimizers.get("gd", learning_rate=0.1, clipvalue=1.0), False),
    "noisy": (
        lambda: optimizers.Noisy(optimizers.get("gd", learning_rate=0.1), variance=0.1),
        False,
    ),
}


@pytest.mark.parametrize("rule", [COMPOSITE, MIXED], ids=["product", "mixed"])
@pytest.mark.parametrize("name", LINEAR)
def test_updates_that_are_not_linear_are_refused_where_a_rule_wants_them(name, rule):
    make, fits = LINEAR[name]
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, alignment=rule)])
    model.compile(make(), "mse")
    for callback in (callbacks.GlobalStep, callbacks.AlignmentMetrics, callbacks.AlignmentLosses):
        watching = callback()
        watching.set_model(model)
        if fits:
            rates.check(model)
            continue
        with pytest.raises(ValueError, match="linear in the gradients.*factored=True"):
            watching.on_train_begin()


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="not in this Keras")
@pytest.mark.parametrize("rule", ["kolen_pollack", "product", COMPOSITE, "symmetric"], ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_kernels_that_meet_go_to_one_optimizer(rule, rate):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, alignment=rule)])
    sgd = keras.optimizers.SGD
    chosen = keras.optimizers.OptimizerMap(sgd(0.1), {".*/backward.*": sgd(rate)})
    model.compile(keras.optimizers.MultiOptimizer(chosen), "mse")
    if rule == "symmetric" or rate == 0.1:
        rates.check(model)
        return
    with pytest.raises(ValueError, match="one optimizer for both kernels.*backward"):
        rates.check(model)


@pytest.mark.parametrize(
    ("optimizer", "rule"),
    [
        (keras.optimizers.Adam(0.1), "symmetric"),
        (keras.optimizers.SGD(0.1), "feedback"),
        (keras.optimizers.SGD(0.1), "kolen_pollack"),
    ],
    ids=["scales gradients", "no loss", "little decay"],
)
def test_others_are_not_warned_of(optimizer, rule):
    assert fit(optimizer, rule, callbacks.GlobalStep(), steps=1)[1] == []


@pytest.mark.parametrize("initializer", ["zeros", "glorot_uniform"])
@pytest.mark.parametrize("rule", ["feedback", "symmetric", "moving_average", "kolen_pollack"])
def test_a_fixed_kernel_of_zeros_is_told(rule, initializer):
    """Others move their B away from 0."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", alignments.AlignmentWarning)
        rates.check(_tied(rule, kernel_initializer=initializer))
    found = [str(one.message) for one in told if "B is 0 and stays so" in str(one.message)]
    assert len(found) == (rule == "feedback" and initializer == "zeros")
    assert all("zeros in" in text and "it" in text for text in found)


def _tied(rule, change=None, **arguments):
    layer = layers.Dense(2, alignment=rule, name="it", **arguments)
    model = keras.Sequential([keras.Input((3,)), layer])
    if change is not None:
        change(layer)
    model.compile("sgd", "mse")
    return model


PARTED = {
    "LoRA": (lambda rule: _tied(rule, lambda layer: layer.enable_lora(2)), "LoRA's factors"),
    "frozen kernel": (
        lambda rule: _tied(rule, lambda layer: setattr(layer.kernel, "trainable", False)),
        "frozen",
    ),
    "constraint": (lambda rule: _tied(rule, kernel_constraint="non_neg"), "constraint"),
    "frozen layer": (lambda rule: _tied(rule, lambda one: setattr(one, "trainable", False)), None),
    "as it is": (_tied, None),
}


@pytest.mark.parametrize("rule", ["kolen_pollack", "product", "symmetric", "feedback"])
@pytest.mark.parametrize("name", PARTED)
def test_a_tied_kernel_whose_forward_kernel_goes_another_way_is_told(name, rule):
    make, word = PARTED[name]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", alignments.AlignmentWarning)
        rates.check(make(rule))
    tied = rule in ("kolen_pollack", "product")
    found = [str(one.message) for one in told if one.category is alignments.AlignmentWarning]
    found = [text for text in found if "B gets W's gradient" in text]
    assert len(found) == (tied and word is not None)
    assert all(word in text and "it/backward_kernel" in text for text in found)
