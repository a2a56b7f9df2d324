import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import optimizers


def noise_of(optimizer, variable):
    """What one step on a zero gradient adds."""
    before = variable.numpy()
    optimizer.apply([tf.zeros(variable.shape)], [variable])
    return variable.numpy() - before


def noisy(variance=0.25, learning_rate=0.1, **options):
    inner = optimizers.get("gd", learning_rate=learning_rate)
    return optimizers.Noisy(inner, variance=variance, **options)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_statistics(distribution):
    variable = keras.Variable(np.zeros((300, 301)), name="w")
    optimizer = noisy(variance=4.0, distribution=distribution)
    optimizer.build([variable])
    first, second = (noise_of(optimizer, variable) / 0.1 for _ in range(2))
    for noise in (first, second):
        # Standard errors: 2 / 300 of the mean, about 4 * sqrt(2) / 300 of the variance.
        assert abs(noise.mean()) < 0.035
        assert noise.var() == pytest.approx(4.0, abs=0.1)
    assert abs(np.mean(first * second)) < 0.07
    assert abs(np.mean(first[:, 1:] * first[:, :-1])) < 0.07
    largest = np.abs(first).max()
    if distribution == "uniform":
        assert 0.99 * np.sqrt(12.0) < largest <= np.sqrt(12.0) + 1e-5
    else:
        assert largest > 7.0


def test_noise_goes_to_the_filtered_variables_only():
    kernel = keras.Variable(np.zeros(50), name="kernel")
    backward = keras.Variable(np.zeros(50), name="backward_kernel")
    optimizer = noisy(apply_filter="backward")
    optimizer.build([kernel, backward])
    optimizer.apply([tf.zeros(50), tf.zeros(50)], [kernel, backward])
    assert not np.any(kernel.numpy())
    assert np.all(backward.numpy())


def test_noise_follows_seed_step_and_variable():
    def draws(seed, skipped=0):
        weights = [keras.Variable(np.zeros(20), name="w") for _ in range(2)]
        optimizer = noisy(seed=seed)
        optimizer.build(weights)
        optimizer.iterations.assign(skipped)
        optimizer.apply([tf.zeros(20)] * 2, weights)
        return [weight.numpy() for weight in weights]

    first, second = draws(1)
    assert np.all(first != second)
    np.testing.assert_array_equal(draws(1)[0], first)
    assert np.all(draws(2)[0] != first)
    assert np.all(draws(1, skipped=1)[0] != first)


def test_noise_scales_with_the_scheduled_rate():
    schedule = optimizers.rate_scheduler.ManualDrop(before=1.0, after=0.0, boundary_step=0)
    variable = keras.Variable(0.0, name="scalar")
    optimizer = noisy(learning_rate=schedule)
    optimizer.build([variable])
    assert noise_of(optimizer, variable) != 0.0
    assert noise_of(optimizer, variable) == 0.0


def test_variance_of_zero_is_the_optimizer_inside():
    noisy_one, plain = (keras.Variable([1.0, 2.0]) for _ in range(2))
    inner = optimizers.get("adam", learning_rate=0.1)
    for optimizer, variable in ((noisy(variance=0.0), noisy_one), (inner, plain)):
        if variable is noisy_one:
            optimizer = optimizers.Noisy(optimizers.get("adam", learning_rate=0.1), variance=0.0)
        optimizer.build([variable])
        for _ in range(4):
            optimizer.apply([tf.convert_to_tensor(variable)], [variable])
    np.testing.assert_array_equal(noisy_one.numpy(), plain.numpy())


def test_learning_rate_is_that_of_the_optimizer_inside():
    optimizer = noisy(learning_rate=0.1)
    optimizer.learning_rate = 0.5
    assert float(optimizer.learning_rate) == float(optimizer.optimizer.learning_rate) == 0.5


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"variance": -1.0}, "variance"),
        ({"variance": float("inf")}, "variance"),
        ({"distribution": "cauchy"}, "normal, uniform"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_bad_arguments(options, named):
    with pytest.raises(ValueError, match=f"Expected .*{named}.*Received"):
        noisy(**options)


def test_an_optimizer_without_a_rule_is_refused():
    routed = optimizers.RoutedOptimizer(optimizers.get("gd"), optimizers.get("adam"))
    for bad in (routed, "adam"):
        with pytest.raises(ValueError, match="update rule of its own"):
            optimizers.Noisy(bad)
