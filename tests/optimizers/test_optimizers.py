import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import optimizers
from neural_alignment.optimizers import Clip

BATCH = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


def problem(second="gd"):
    weights = [
        keras.Variable([0.5, -1.0, 2.0], name="kernel"),
        keras.Variable([1.0, 1.0, 1.0], name="backward_kernel"),
        keras.Variable(3.0, name="unused"),
    ]
    pair = [optimizers.get("gd", learning_rate=0.1), optimizers.get(second, learning_rate=0.01)]
    for optimizer in pair:
        optimizer.build(weights)
    return weights, pair


def losses(weights):
    kernel, backward, _ = weights

    def of(batch):
        first = tf.reduce_mean(tf.reduce_sum(batch * kernel, axis=1) ** 2)
        second = tf.reduce_sum((tf.stop_gradient(tf.convert_to_tensor(kernel)) - backward) ** 2)
        return [first, second], {"first": first, "mean": tf.reduce_mean(batch, axis=0)}

    return of


def expected_step(kernel, backward, batch):
    kernel_gradient = 2.0 * batch.T @ (batch @ kernel) / len(batch)
    return kernel - 0.1 * kernel_gradient, backward - 0.01 * 2.0 * (backward - kernel)


def test_both_gradients_are_taken_at_the_same_weights():
    weights, pair = problem()
    values, rest = optimizers.minimize(losses(weights), tf.constant(BATCH), pair, weights)
    kernel, backward = expected_step(np.array([0.5, -1.0, 2.0]), np.ones(3), BATCH)
    np.testing.assert_allclose(weights[0].numpy(), kernel, rtol=1e-5)
    np.testing.assert_allclose(weights[1].numpy(), backward, rtol=1e-5)
    assert float(weights[2].numpy()) == 3.0
    assert float(values[1]) == pytest.approx(0.25 + 4.0 + 1.0)
    assert float(rest["first"]) == float(values[0])
    assert [int(optimizer.iterations.numpy()) for optimizer in pair] == [1, 1]


def test_one_loss_with_one_optimizer_is_the_list_of_one():
    weights, (optimizer, _) = problem()

    def total(batch):
        both, rest = losses(weights)(batch)
        return [both[0] + both[1]], rest

    optimizers.minimize(total, tf.constant(BATCH), [optimizer], weights, names=("total",))
    assert np.all(weights[0].numpy() != [0.5, -1.0, 2.0])
    assert np.any(weights[1].numpy() != 1.0)


def test_a_gradient_of_none_stays_none_and_its_slots_untouched():
    weights, pair = problem("adam")
    gradients, _, _ = optimizers.compute_gradients(
        losses(weights), tf.constant(BATCH), pair, weights
    )
    assert [[g is None for g in some] for some in gradients] == [
        [False, True, True],
        [True, False, True],
    ]


def test_a_loss_that_reaches_nothing_is_named():
    weights, pair = problem()

    def of(batch):
        both, rest = losses(weights)(batch)
        return [both[0], tf.constant(0.0)], rest

    with pytest.raises(ValueError, match="'alignment_loss' to depend on a trainable variable"):
        optimizers.minimize(of, tf.constant(BATCH), pair, weights)
    with pytest.raises(ValueError, match="one loss for each of 1 optimizers"):
        optimizers.minimize(losses(weights), tf.constant(BATCH), pair[:1], weights)


def test_an_optimizer_that_is_not_built_is_refused():
    weights, pair = problem()
    pair[1] = optimizers.get("adam")
    with pytest.raises(ValueError, match="'adam' to be built"):
        optimizers.minimize(losses(weights), tf.constant(BATCH), pair, weights)


@pytest.mark.parametrize("options", [None, {"jit_compile": False}, {"jit_compile": True}])
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_micro_batches_give_the_whole_batchs_step(parts, options):
    weights, pair = problem()
    whole, whole_pair = problem()
    reference, rest = optimizers.minimize(losses(whole), tf.constant(BATCH), whole_pair, whole)

    def step(batch):
        return optimizers.minimize(losses(weights), batch, pair, weights, micro_batches=parts)

    step = tf.function(step, **options) if options else step
    values, means = step(tf.constant(BATCH))
    for got, expected in zip([*weights, *values], [*whole, *reference], strict=True):
        np.testing.assert_allclose(np.asarray(got.numpy()), expected.numpy(), rtol=1e-5)
    np.testing.assert_allclose(means["mean"], rest["mean"], rtol=1e-5, atol=1e-7)
    assert [int(optimizer.iterations.numpy()) for optimizer in pair] == [1, 1]


def test_micro_batches_update_state_once_each_in_order():
    weights, pair = problem()
    seen = keras.Variable(0.0, trainable=False)

    def of(batch):
        seen.assign(seen * 10.0 + tf.reduce_sum(batch[0]))
        return losses(weights)(batch)

    batch = np.repeat(np.array([1.0, 2.0, 3.0], np.float32)[:, None], 3, axis=1)
    tf.function(
        lambda: optimizers.minimize(of, tf.constant(batch), pair, weights, micro_batches=3)
    )()
    assert float(seen.numpy()) == 369.0


def test_micro_batches_of_a_dynamic_batch():
    weights, pair = problem()

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def step(batch):
        optimizers.minimize(losses(weights), batch, pair, weights, micro_batches=2)

    step(BATCH)
    kernel, _ = expected_step(np.array([0.5, -1.0, 2.0]), np.ones(3), BATCH)
    np.testing.assert_allclose(weights[0].numpy(), kernel, rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        step(BATCH[:7])


def test_bad_micro_batches():
    weights, pair = problem()
    arguments = (tf.constant(BATCH), pair, weights)
    with pytest.raises(ValueError, match="3 micro-batches divide"):
        optimizers.minimize(losses(weights), *arguments, micro_batches=3)
    with pytest.raises(ValueError, match="micro_batches"):
        optimizers.minimize(losses(weights), *arguments, micro_batches=0)

    def counts(batch):
        return losses(weights)(batch)[0], tf.constant(1)

    with pytest.raises(ValueError, match="floating results"):
        optimizers.minimize(counts, *arguments, micro_batches=2)


def test_clip_by_norm_is_global():
    gradients = [tf.constant([3.0, 0.0]), tf.constant([[4.0]])]
    clipped = Clip("norm", 1.0)(gradients)
    np.testing.assert_allclose(clipped[0], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped[1], [[0.8]], rtol=1e-6)
    for got, expected in zip(Clip("norm", 10.0)(gradients), gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_clip_by_value():
    np.testing.assert_array_equal(
        Clip("value", 0.5)([tf.constant([-2.0, 0.25, 3.0])])[0], [-0.5, 0.25, 0.5]
    )


@pytest.mark.parametrize("method", ["norm", "value"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_is_not_finite_stays_so(method, bad, jit_compile):
    clip = tf.function(Clip(method, 1.0).__call__, jit_compile=jit_compile)
    clipped = clip([tf.constant([1.0, bad]), tf.constant([2.0])])
    assert not np.isfinite(clipped[0][1])
    if method == "norm":
        assert not np.isfinite(clipped[0]).any() and not np.isfinite(clipped[1]).any()


def test_bad_clips():
    for arguments, named in ((("sum", 1.0), "value, norm"), (("norm", 0.0), "limit")):
        with pytest.raises(ValueError, match=f"Expected .*{named}.*Received"):
            Clip(*arguments)
    weights, pair = problem()
    scaled = keras.optimizers.LossScaleOptimizer(pair[0])
    scaled.build(weights)
    with pytest.raises(ValueError, match="LossScaleOptimizer"):
        optimizers.minimize(
            losses(weights), tf.constant(BATCH), [scaled, pair[1]], weights, clip=Clip()
        )


def test_loss_scaling_is_undone():
    weights, pair = problem()
    scaled = keras.optimizers.LossScaleOptimizer(pair[0], initial_scale=1024.0)
    scaled.build(weights)
    values, _ = optimizers.minimize(losses(weights), tf.constant(BATCH), [scaled, pair[1]], weights)
    kernel, _ = expected_step(np.array([0.5, -1.0, 2.0]), np.ones(3), BATCH)
    np.testing.assert_allclose(weights[0].numpy(), kernel, rtol=1e-5)
    assert float(values[1]) == pytest.approx(5.25)


@pytest.mark.parametrize("clip", [None, Clip("norm", 0.5), Clip("value", 0.3)])
@pytest.mark.parametrize("parts", [1, 2])
def test_two_replicas_equal_one_device(mirrored, clip, parts):
    strategy = mirrored
    with strategy.scope():
        weights, pair = problem("adam")
    batches = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(BATCH[4 * context.replica_id_in_sync_group :][:4])
    )

    @tf.function
    def step(batch):
        def replica_step(batch):
            return optimizers.minimize(
                losses(weights), batch, pair, weights, micro_batches=parts, clip=clip
            )[0]

        return strategy.run(replica_step, (batch,))

    alone, alone_pair = problem("adam")
    for _ in range(3):
        values = step(batches)
        expected, _ = optimizers.minimize(
            losses(alone), tf.constant(BATCH), alone_pair, alone, clip=clip
        )
    for weight, reference in zip(weights, alone, strict=True):
        np.testing.assert_allclose(weight.numpy(), reference.numpy(), rtol=1e-5, atol=1e-6)
    mean = strategy.reduce("MEAN", values[0], axis=None)
    assert float(mean) == pytest.approx(float(expected[0]), rel=1e-4)


def test_names_need_no_tensorflow():
    import subprocess
    import sys

    code = (
        "import sys; from neural_alignment import optimizers; optimizers.names(); "
        "from neural_alignment.optimizers import validation; "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
