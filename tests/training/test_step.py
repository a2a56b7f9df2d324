"""One step of the two losses, and one validation step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import layers, models, optimizers
from neural_alignment.layers import training_step
from neural_alignment.training.step import Step, Validation

RATE = 0.1


def network(rule="symmetric") -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    x = layers.Dense(
        6, "relu", alignment=rule, kernel_regularizer=keras.regularizers.L2(0.01), name="first"
    )(inputs)
    return keras.Model(inputs, layers.Dense(3, alignment=rule, name="last")(x))


def batch(size=8):
    draw = np.random.default_rng(0)
    return (
        tf.constant(draw.normal(size=(size, 5)).astype("float32")),
        tf.constant(draw.integers(0, 3, size), tf.int32),
    )


def step_of(model, two=False, loss_rate=1.0, alignment_rate=1.0, **options):
    return Step(
        model,
        optimizers.get("gd", learning_rate=RATE),
        optimizers.get("gd", learning_rate=RATE) if two else None,
        lambda step: tf.constant(loss_rate),
        lambda step: tf.constant(alignment_rate),
        **options,
    )


def by_hand(model, loss_rate=1.0, alignment_rate=1.0):
    """The losses, and the weights after gradient descent on the total."""
    images, labels = batch()
    with tf.GradientTape() as tape:
        with training_step(0, 0) as active:
            logits = model(images, training=True)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        ) + tf.add_n(model.losses)
        by_layer = [value for _, value in active.losses]
        total = loss_rate * loss + alignment_rate * tf.add_n(by_layer)
    gradients = tape.gradient(total, model.trainable_variables)
    weights = [
        v.numpy() - (0.0 if g is None else RATE * g.numpy())
        for v, g in zip(model.trainable_variables, gradients, strict=True)
    ]
    return [loss.numpy(), sum(map(float, by_layer)), *map(float, by_layer)], weights


@pytest.mark.parametrize("two", [False, True], ids=["one optimizer", "two"])
@pytest.mark.parametrize("rates", [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0)])
def test_step_is_gradient_descent_on_both_losses(two, rates):
    model = network()
    measured, weights = by_hand(model, *rates)
    step = step_of(model, two, *rates)
    assert step.measured == (
        "loss",
        "alignment_loss",
        "alignment_loss/first",
        "alignment_loss/last",
    )
    got = step(*batch(), tf.constant(0))
    np.testing.assert_allclose(got, measured, rtol=1e-6)
    for variable, wanted in zip(model.trainable_variables, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "how"), [("information", "graph"), ("information", "xla"), ("mirror", "jit_compile")]
)
def test_eager_graph_and_xla_agree(rule, how):
    eager, other = network(rule), network(rule)
    step = step_of(eager)
    wanted = [step(*batch(), tf.constant(i)).numpy() for i in range(3)]
    step = step_of(other, jit_compile=how == "jit_compile")
    run = tf.function(step, jit_compile=how == "xla", autograph=False)
    got = [run(*batch(), tf.constant(i)).numpy() for i in range(3)]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    for a, b in zip(eager.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "compiled"),
    [
        (tf.distribute.get_strategy, True),
        (lambda: tf.distribute.OneDeviceStrategy("CPU:0"), True),
        # Its replicas meet in the update, however many they are.
        (lambda: tf.distribute.MirroredStrategy(["CPU:0"]), False),
    ],
    ids=["default", "one device", "mirrored"],
)
def test_one_device_compiles_its_updates_too(strategy, compiled):
    made = strategy()
    with made.scope():
        model = network()
        step = step_of(model, jit_compile=True)
    before = model.get_weights()
    arguments = (*batch(), tf.constant(0))
    run = tf.function(lambda: made.run(step, arguments), autograph=False)
    graph = run.get_concrete_function().graph
    updates = {
        op.type for op in graph.get_operations() if "Assign" in op.type or "Apply" in op.type
    }
    assert (not updates) == compiled
    run()
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_micro_batches_average():
    whole, split = network(), network()
    wanted = step_of(whole)(*batch(), tf.constant(0))
    got = step_of(split, micro_batches=4)(*batch(), tf.constant(0))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    for a, b in zip(whole.trainable_variables, split.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


def float64_losses(labels, logits):
    z = logits.astype("float64")
    t = np.eye(z.shape[1])[labels]
    p = 1.0 / (1.0 + np.exp(-z))
    soft = z - np.log(np.sum(np.exp(z), axis=1, keepdims=True))
    return {
        "softmax": -np.sum(t * soft, axis=1),
        "sigmoid": -np.sum(t * np.log(p) + (1.0 - t) * np.log(1.0 - p), axis=1),
    }


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_loss_of_a_step_and_of_validation(loss, jit_compile):
    images, labels = batch()
    model = network("feedback")
    logits = model(images).numpy()
    wanted = float64_losses(labels.numpy(), logits)[loss]
    sums = Validation(model, loss)(images, labels, tf.ones(8)).numpy()
    assert sums[0] == pytest.approx(wanted.sum(), rel=1e-5)
    penalty = float(sum(model.losses))
    step = step_of(model, loss=loss, jit_compile=jit_compile)
    measured = step(images, labels, tf.constant(0)).numpy()
    assert measured[0] == pytest.approx(wanted.mean() + penalty, rel=1e-5)
    assert float(step.mean_loss(labels, logits)) == pytest.approx(wanted.mean(), rel=1e-5)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="softmax, sigmoid. Received: 'hinge'"):
        step_of(network(), loss="hinge")


@pytest.mark.parametrize("name", ["gd", "momentum"])
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("options", [{}, {"micro_batches": 4}])
def test_biases_at_a_rate_of_their_own(name, two, options):
    factor, ends = 0.25, []
    for bias_rate in (1.0, factor):
        model = network("kolen_pollack" if not two else "symmetric")
        start = {v.path: v.numpy() for v in model.trainable_variables}
        step = Step(
            model,
            optimizers.get(name, learning_rate=RATE),
            optimizers.get("adam") if two else None,
            lambda step: tf.constant(1.0),
            lambda step: tf.constant(1.0),
            bias_rate=bias_rate,
            **options,
        )
        step(*batch(), tf.constant(0))
        ends.append({v.path: v.numpy() - start[v.path] for v in model.trainable_variables})
    usual, slow = ends
    biases = [path for path in usual if path.endswith("bias")]
    assert len(biases) == 2 and len(usual) == 6
    for path, change in usual.items():
        part = factor if path in biases else 1.0
        np.testing.assert_allclose(slow[path], part * change, rtol=1e-5, atol=1e-7, err_msg=path)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (lambda: optimizers.get("adam"), {}),
        (lambda: optimizers.Noisy(optimizers.get("gd"), variance=1.0), {}),
        (lambda: keras.optimizers.SGD(clipnorm=1.0), {}),
        (lambda: optimizers.get("gd"), {"clip": optimizers.Clip()}),
    ],
    ids=["adam", "noisy", "clipping", "clipped"],
)
def test_a_factor_of_the_gradient_that_is_none_of_the_rate_is_refused(optimizer, options):
    rate = lambda step: tf.constant(1.0)  # noqa: E731
    with pytest.raises(ValueError, match="gradient descent or momentum.*bias_rate=0.5"):
        Step(network("feedback"), optimizer(), None, rate, rate, bias_rate=0.5, **options)


@pytest.mark.parametrize("rule", [None, "kolen_pollack", "symmetric", "frozen"])
def test_weights_decay_by_the_step_and_the_rules_own_do_not(rule):
    options = {"input_shape": (5,), "num_classes": 3, "layers_list": (6,), "l2": 0.0}
    plain, decayed = (models.get("fc", **options, alignment=rule) for _ in range(2))
    for a, b in zip(plain.weights, decayed.weights, strict=True):
        b.assign(a + 0.1)  # biases other than 0
        a.assign(a + 0.1)
    before = {v.path: v.numpy() for v in decayed.weights}
    trained = {v.path for v in decayed.trainable_variables}
    schedule = optimizers.Piecewise(steps_per_epoch=5, epochs=(0, 1), values=(0.5, 0.25))
    loss, _, *_ = step_of(plain)(*batch(), tf.constant(7))
    with_decay, _, *_ = step_of(decayed, weight_decay=schedule)(*batch(), tf.constant(7))
    squares = 0.0
    for a, b in zip(plain.weights, decayed.weights, strict=True):
        own = "backward_" in b.path or b.path not in trained
        rate = 0.0 if own else RATE * 0.25
        squares += 0.0 if own else float(np.sum(before[b.path] ** 2))
        np.testing.assert_allclose(b.numpy(), a.numpy() - rate * before[b.path], atol=1e-6)
    assert float(with_decay - loss) == pytest.approx(0.125 * squares, rel=1e-5)
    assert squares > 0.0


def test_backprop_has_one_loss():
    model = network(None)
    assert step_of(model).measured == ("loss", "alignment_loss")
    loss, alignment_loss = step_of(model)(*batch(), tf.constant(0)).numpy()
    assert loss > 0.0 and alignment_loss == 0.0


@pytest.mark.parametrize("rule", [None, "feedback"])
def test_no_alignment_loss_for_the_second_optimizer(rule):
    with pytest.raises(ValueError, match="alignment_optimizer"):
        step_of(network(rule), two=True)


def test_a_rule_that_wants_linear_updates_gets_them():
    composite = {"name": "product", "factored": False}
    step_of(network(composite), two=True)
    with pytest.raises(ValueError, match="linear in the gradients.*behind clipping"):
        step_of(network(composite), clip=optimizers.Clip(limit=1.0))


def test_validation_counts_every_example_of_weight_one():
    model = keras.Sequential([keras.Input((7,)), keras.layers.Identity()])
    logits = np.random.default_rng(0).normal(size=(40, 7)).astype("float32")
    logits[:10] = np.round(logits[:10])  # ties
    labels = np.random.default_rng(1).integers(0, 7, 40).astype("int32")
    weights = np.array([1.0] * 33 + [0.0] * 7, "float32")
    loss, top1, top5, count = Validation(model)(logits, labels, weights).numpy()
    kept = weights > 0
    order = np.argsort(-logits, axis=1, kind="stable")
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    assert count == 33
    assert top1 == sum(order[kept][:, 0] == labels[kept])
    assert top5 == sum((order[kept][:, :5] == labels[kept][:, None]).any(1))
    np.testing.assert_allclose(loss, -log_p[np.arange(40), labels][kept].sum(), rtol=1e-5)


def test_validation_leaves_out_what_is_not_finite_in_padding():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Identity()])
    logits = np.array([[1.0, 2.0, 3.0], [np.nan, np.nan, np.nan]], "float32")
    values = Validation(model)(logits, np.array([2, 0], "int32"), np.array([1.0, 0.0], "float32"))
    assert np.isfinite(values.numpy()).all()
