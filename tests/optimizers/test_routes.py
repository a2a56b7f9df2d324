"""Which variable goes where, and what reaches the optimizers inside."""

import warnings

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers, optimizers
from neural_alignment.optimizers import rate_scheduler

pytestmark = pytest.mark.backend

BACKEND = keras.backend.backend()
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 4)).astype("float32")
Y = X[:, :2]
BATCHES = [slice(start, start + 8) for start in (0, 8, 16)] * 3


def momentum(**options):
    return optimizers.get("momentum", learning_rate=0.05, **options)


def adam(**options):
    return optimizers.get("adam", learning_rate=0.01, **options)


def network(alignment, optimizer, *, last=None, **options):
    keras.utils.set_random_seed(1)
    made = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activation="tanh", alignment=alignment, name="a"),
            layers.Dense(2, alignment=last or alignment, name="b"),
        ]
    )
    made.compile(optimizer, "mse", **options)
    return made


def train(made, batches=BATCHES):
    for batch in batches:
        made.train_on_batch(X[batch], Y[batch])
    return made


def values(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def weights(made):
    return values(made.weights)


def assert_equal(first, second, **tolerance):
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_allclose(ours, theirs, **{"rtol": 1e-5, "atol": 1e-6} | tolerance)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", alignments.AlignmentWarning)
    WITHOUT_A_LOSS = alignments.KolenPollack(decay_coef=0.0)

TIED = {
    "kolen_pollack": "kolen_pollack",
    "with update_forward": alignments.KolenPollack(update_forward=True),
    "sparse": alignments.KolenPollack(density=0.5),
    "product": "product",
    "without a loss": WITHOUT_A_LOSS,
}


@pytest.mark.parametrize("name", TIED)
def test_the_kernels_of_a_tied_rule_go_to_one_optimizer(name):
    routed = train(network(TIED[name], optimizers.RoutedOptimizer(momentum(), adam())))
    alone = train(network(TIED[name], momentum()))
    assert_equal(weights(routed), weights(alone))
    paths = [one.path for one in routed.optimizer.alignment_optimizer._trainable_variables]
    assert paths == []


def test_tied_and_untied_rules_in_one_model():
    made = train(
        network("kolen_pollack", optimizers.RoutedOptimizer(momentum(), adam()), last="symmetric")
    )
    to_alignment = made.optimizer.alignment_optimizer._trainable_variables
    assert [one.path.split("/")[-2:] for one in to_alignment] == [["b", "backward_kernel"]]


def test_kolen_pollack_with_the_optimizers_of_the_readme_converges():
    made = network("kolen_pollack", optimizers.RoutedOptimizer(momentum(), adam()))
    history = made.fit(X, Y, batch_size=8, epochs=60, verbose=0).history["loss"]
    assert history[-1] < 0.2 * history[0]


@pytest.mark.parametrize(
    ("patterns", "parts"),
    [
        ((r"backward_",), True),
        ((r"a/kernel", r"b/backward_kernel"), True),
        ((r"a/",), False),
        ((r"kernel",), False),
    ],
)
def test_patterns_of_ones_own_do_not_part_a_tied_pair(patterns, parts):
    made = network(
        "kolen_pollack", optimizers.RoutedOptimizer(momentum(), adam(), patterns=patterns)
    )
    if parts:
        with pytest.raises(ValueError, match="Expected patterns that take both kernels"):
            train(made)
    else:
        train(made)


@pytest.mark.parametrize(
    ("alignment", "options", "missing"),
    [
        ("symmetric", {"patterns": ("nothing",)}, "nothing"),
        ("symmetric", {"patterns": (r"backward_", r"head/")}, "head/"),
        ("feedback", {}, "backward_"),
        (None, {}, "backward_"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(alignment, options, missing):
    made = network(alignment, optimizers.RoutedOptimizer(momentum(), adam(), **options))
    with pytest.raises(ValueError, match=f"Expected every pattern to match.*{missing}"):
        train(made)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "noisy"])
def test_what_is_excluded_from_weight_decay_is_so_inside(wrapped):
    def make():
        nested = [momentum(weight_decay=0.5), adam(weight_decay=0.5)]
        if wrapped:
            nested = [optimizers.Noisy(one, variance=0.0) for one in nested]
        return optimizers.RoutedOptimizer(*nested)

    excluding, everything = make(), make()
    excluding.exclude_from_weight_decay(var_names=["bias", "backward_kernel"])
    none = optimizers.RoutedOptimizer(momentum(), adam())
    first, second, third = (network("symmetric", one) for one in (excluding, everything, none))
    for made in (first, second, third):
        for layer in made.layers:
            layer.bias.assign(np.ones(layer.bias.shape))
        train(made, BATCHES[:1])
    names = [weight.path.split("/")[-1] for weight in first.weights]
    for name, ours, decayed, plain in zip(
        names, weights(first), weights(second), weights(third), strict=True
    ):
        same, other = (plain, decayed) if name in ("bias", "backward_kernel") else (decayed, plain)
        np.testing.assert_allclose(ours, same, rtol=1e-5, atol=1e-7)
        assert np.any(np.abs(ours - other) > 1e-4)


def averaged(**options):
    return {"use_ema": True, "ema_momentum": 0.5} | options


@pytest.mark.parametrize("scaled", [False, True])
def test_averages_are_swapped_in_for_validation(scaled):
    routed = optimizers.RoutedOptimizer(momentum(**averaged()), adam(**averaged()))
    optimizer = keras.optimizers.LossScaleOptimizer(routed) if scaled else routed
    made = network("symmetric", optimizer)

    class Seen(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            self.weights = weights(self.model)

    seen = Seen()
    made.fit(
        X, Y, batch_size=8, epochs=2, verbose=0, shuffle=False, validation_data=(X, Y),
        callbacks=[keras.callbacks.SwapEMAWeights(), seen],
    )  # fmt: skip
    # When training ends, Keras puts the averages in for good.
    assert_equal(seen.weights, weights(made))
    plain = network("symmetric", optimizers.RoutedOptimizer(momentum(), adam()))
    averages, step = weights(plain), 0
    for batch in BATCHES[:6]:
        plain.train_on_batch(X[batch], Y[batch])
        share = 0.5 if step else 0.0
        averages = [
            share * a + (1 - share) * w for a, w in zip(averages, weights(plain), strict=True)
        ]
        step += 1
    assert_equal(seen.weights, averages)


@pytest.mark.parametrize(
    ("nested", "error"),
    [
        ((averaged(), {}), "Expected use_ema=True in both nested optimizers"),
        (({}, {}), "SwapEMAWeights must be used when"),
    ],
)
def test_averages_that_are_not_there_cannot_be_swapped(nested, error):
    first, second = nested
    made = network("symmetric", optimizers.RoutedOptimizer(momentum(**first), adam(**second)))
    with pytest.raises(ValueError, match=error):
        made.fit(
            X, Y, verbose=0, validation_data=(X, Y), callbacks=[keras.callbacks.SwapEMAWeights()]
        )


@pytest.mark.parametrize(
    "options",
    [
        {"clipnorm": 1e-3},
        {"clipvalue": 1e-3},
        {"weight_decay": 0.1},
        averaged(ema_overwrite_frequency=2),
        {"gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 2, "clipnorm": 1e-3},
    ],
    ids=str,
)
def test_options_inside_are_those_of_two_optimizers_alone(options):
    """With one and the same optimizer on both sides nothing is left that tells routes apart."""
    made = train(
        network("symmetric", optimizers.RoutedOptimizer(momentum(**options), momentum(**options)))
    )
    alone = train(network("symmetric", momentum(**options)))
    assert_equal(weights(made), weights(alone))


def scaled(optimizer):
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)


@pytest.mark.parametrize("accumulate", [None, 2])
def test_loss_scaling_around_it_changes_nothing(accumulate):
    def make():
        options = {"gradient_accumulation_steps": accumulate}
        return optimizers.RoutedOptimizer(momentum(**options), adam(**options))

    assert_equal(
        weights(train(network("symmetric", scaled(make())))),
        weights(train(network("symmetric", make()))),
    )


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: (scaled(momentum()), adam()), "without loss_scale_factor and LossScaleOptimizer"),
        (lambda: (momentum(), scaled(adam())), "without loss_scale_factor and LossScaleOptimizer"),
        (lambda: (momentum(loss_scale_factor=2.0), adam()), "without loss_scale_factor"),
        (lambda: (momentum(gradient_accumulation_steps=2), adam()), "update together"),
        (
            lambda: (
                momentum(gradient_accumulation_steps=2),
                optimizers.Noisy(adam(gradient_accumulation_steps=3)),
            ),
            "update together",
        ),
    ],
)
def test_what_cannot_be_passed_on_is_refused(make, error):
    with pytest.raises(ValueError, match=f"Expected .*{error}.*Received"):
        optimizers.RoutedOptimizer(*make())


@pytest.mark.parametrize("rate", [-1.0, float("nan"), "fast"])
@pytest.mark.parametrize("name", ["loss_rate", "alignment_rate"])
def test_bad_rates(name, rate):
    with pytest.raises(ValueError, match=f"Expected {name}"):
        optimizers.RoutedOptimizer(momentum(), adam(), **{name: rate})


RATES = {
    "delay": {"delay_epochs": 1.0, "steps_per_epoch": 3},
    "alternation": {"alternate_step_freq": 1},
    "both": {"delay_epochs": 1.0, "steps_per_epoch": 3, "alternate_step_freq": 2},
}


def rated(first, second, **schedule):
    return optimizers.RoutedOptimizer(
        first,
        second,
        loss_rate=rate_scheduler.LossRate(**schedule),
        alignment_rate=rate_scheduler.AlignmentRate(**schedule),
    )


@pytest.mark.parametrize("name", RATES)
def test_which_steps_train_what(name):
    """With gradient descent what a rate of 0 switches off stands still."""
    made = network(
        "symmetric",
        rated(*(optimizers.get("gd", learning_rate=0.1) for _ in range(2)), **RATES[name]),
    )
    loss_rate, alignment_rate = made.optimizer.loss_rate, made.optimizer.alignment_rate
    layer = made.layers[0]
    for step, batch in enumerate(BATCHES):
        before = values([layer.kernel, layer.backward_kernel])
        made.train_on_batch(X[batch], Y[batch])
        moved = [
            bool(np.any(old != new))
            for old, new in zip(before, values([layer.kernel, layer.backward_kernel]), strict=True)
        ]
        expected = [float(rate(step)) > 0.0 for rate in (loss_rate, alignment_rate)]
        assert moved == expected


def test_rates_see_the_updates():
    """Accumulated over two batches, alternation turns with the updates, not with the batches."""

    def make(accumulate):
        options = {"learning_rate": 0.1, "gradient_accumulation_steps": accumulate}
        nested = (optimizers.get("gd", **options) for _ in range(2))
        return network("symmetric", rated(*nested, alternate_step_freq=1))

    twice = [batch for batch in BATCHES for _ in range(2)]
    assert_equal(weights(train(make(2), twice)), weights(train(make(None))))


@pytest.mark.parametrize(
    "alignment", ["kolen_pollack", "product", alignments.Symmetric(update_forward=True)]
)
def test_rates_are_refused_where_both_losses_reach_a_kernel(alignment):
    with pytest.raises(ValueError, match="two losses reach different kernels"):
        train(network(alignment, rated(momentum(), adam(), alternate_step_freq=1)))
    half = optimizers.RoutedOptimizer(momentum(), adam(), patterns=("kernel",), loss_rate=0.5)
    with pytest.raises(ValueError, match="two losses reach different kernels"):
        train(network(alignment, half))


def test_rates_round_trip():
    made = rated(momentum(), adam(), alternate_step_freq=2)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
    assert again.get_config() == made.get_config()
    assert again.loss_rate == made.loss_rate and float(again.alignment_rate(1)) == 0.0


def test_a_config_without_rates_is_of_the_version_before():
    config = optimizers.RoutedOptimizer(momentum(), adam()).get_config()
    del config["loss_rate"], config["alignment_rate"]
    assert optimizers.RoutedOptimizer.from_config(config).loss_rate == 1.0
