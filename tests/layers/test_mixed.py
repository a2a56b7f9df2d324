"""Groups of units under rules of their own: a layer is its groups side by side."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, config, layers, optimizers
from neural_alignment.layers import training_step
from tests.layers.conformance import draw
from tests.layers.measure import SEED, STEP, measure

# What looks at kernels alone, and what compares projections of the layer's own input.
KERNELS = (
    "product(expansion=2.0,factored=false):0.25,feedback(density=0.5):0.25,"
    "symmetric(update_forward=true):0.25,sign_symmetry(magnitude=fixed_random):0.25"
)
OWN = "input_distribution=none,use_bias_forward=true,activation_forward=true"
PROJECTIONS = (
    f"mirror({OWN},use_bias_backward=true,average_positions=true):0.25,"
    f"activation({OWN},batch_center_forward_output=true):0.25,"
    "information(input_distribution=none,normalize_backward_output=true):0.25,kolen_pollack:0.25"
)
FRACTIONS = {"kernels": KERNELS, "projections": PROJECTIONS}
CASES = {
    "dense": (layers.Dense, {}, (3, 5), -1),
    "dense_rank3": (layers.Dense, {}, (3, 2, 5), -1),
    "conv": (layers.Conv2D, {"kernel_size": 3, "strides": 2, "padding": "same"}, (3, 6, 5, 2), -1),
    "transposed": (layers.Conv2DTranspose, {"kernel_size": 2, "strides": 2}, (3, 3, 2, 3), -2),
}


def built(cls, alignment, shape, **arguments):
    layer = cls(alignment=alignment, activation="tanh", bias_initializer="normal", **arguments)
    layer.build(shape)
    return layer


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fractions", FRACTIONS)
def test_a_layer_is_its_groups_side_by_side(name, fractions):
    """Outputs, errors, gradients and R are those of a layer for each group."""
    cls, arguments, shape, axis = CASES[name]
    keras.utils.set_random_seed(0)
    mixed = alignments.Mixed(fractions=FRACTIONS[fractions])
    whole = built(cls, mixed, shape, **{_units(cls): 8}, **arguments)
    x = tf.constant(draw(shape))
    dy = tf.constant(draw(tuple(whole.compute_output_shape(shape)), 1))
    found = measure(whole, x, dy)
    parts = []
    for number, rule in enumerate(mixed.rules):
        part = built(cls, rule, shape, **{_units(cls): 2}, **arguments)
        at = slice(2 * number, 2 * number + 2)
        part.kernel.assign(np.take(whole.kernel, range(8)[at], axis=axis))
        part.bias.assign(whole.bias[at])
        suffix = f"_{number}_{rule.name}"
        for variable in part.sites[0].variables.values():
            value = getattr(whole, variable.name + suffix)
            turned = cls is layers.Conv2DTranspose and value.shape != variable.shape
            variable.assign(np.swapaxes(value, -1, -2) if turned else value)
        parts.append((part, at, suffix, measure(part, x, dy[..., at])))
    close = {"rtol": 1e-4, "atol": 1e-5}
    total = sum(float(m.loss) for *_, m in parts if m.loss is not None)
    np.testing.assert_allclose(found.loss, total, **close)
    np.testing.assert_allclose(found.of_j["x"], sum(m.of_j["x"] for *_, m in parts), **close)
    for part, at, suffix, m in parts:
        np.testing.assert_allclose(found.outputs[..., at], m.outputs, **close)
        np.testing.assert_allclose(found.of_j["bias"][at], m.of_j["bias"], **close)
        dw = np.take(found.of_j["kernel"], range(8)[at], axis=axis)
        np.testing.assert_allclose(dw, m.of_j["kernel"], **close)
        for name_ in part.sites[0].variables:
            for ours, theirs in ((found.of_j, m.of_j), (found.of_r, m.of_r)):
                ours, theirs = ours[name_ + suffix], theirs[name_]
                assert (ours is None) == (theirs is None), name_
                if ours is not None:
                    turned = cls is layers.Conv2DTranspose and ours.shape != theirs.shape
                    ours = np.swapaxes(ours, -1, -2) if turned else ours
                    np.testing.assert_allclose(ours, theirs, **close, err_msg=name_)


def _units(cls):
    return "units" if cls is layers.Dense else "filters"


@pytest.mark.parametrize("groups", [1, 2])
def test_units_that_see_inputs_of_their_own(groups):
    """The mirror's R of grouped and depthwise convolutions, a group of units each."""
    rule = alignments.Mirror(input_distribution=None)
    mixed = alignments.Mixed(fractions=[(rule, 0.5), (rule, 0.5)])
    shape = (3, 5, 4, 4)
    made = [
        layers.Conv2D(4, 2, groups=2, alignment=a)
        if groups == 2
        else layers.DepthwiseConv2D(2, alignment=a)
        for a in (mixed, rule)
    ]
    for layer in made:
        layer.build(shape)
    ours, theirs = made
    theirs.set_weights([ours.weights[0], ours.backward_kernel_value(), ours.weights[-1]])

    @tf.function(jit_compile=True)
    def losses(x):
        found = []
        for layer in made:
            with training_step(STEP, SEED) as active:
                layer(x, training=True)
            found.append(active.losses[0][1])
        return found

    # R is a sum over units, whatever group they are in.
    np.testing.assert_allclose(*losses(tf.constant(draw(shape))), rtol=1e-4)


def test_one_way_to_say_it():
    """A mapping, pairs, a text and a config make the same rule."""
    text = "product(expansion=3.0,factored=false):0.5,feedback:0.25,kolen_pollack:0.25"
    product = alignments.Product(expansion=3.0, factored=False)
    made = [
        alignments.Mixed(fractions=text),
        alignments.Mixed(fractions=" product( factored = false , expansion=3 ) : 0.50, "
        "feedback:.25,kolen_pollack:0.25 "),
        alignments.Mixed(fractions={"product(expansion=3,factored=false)": 0.5, "feedback": 0.25,
                                    "kolen_pollack": 0.25}),
        alignments.Mixed(fractions=[(product, 0.5), ({"name": "feedback"}, 0.25),
                                    ("kolen_pollack", 0.25)]),
        alignments.get({"name": "mixed", "fractions": text}),
    ]  # fmt: skip
    made.append(alignments.get(alignments.serialize(made[0])))
    assert all(rule == made[0] and hash(rule) == hash(made[0]) for rule in made)
    assert made[0].fractions == text
    assert made[0].rules == (product, alignments.Feedback(), alignments.KolenPollack())
    by_name = alignments.get({"name": "mixed", "fractions": {"product": 0.6, "feedback": 0.4}})
    assert by_name.fractions == "product:0.6,feedback:0.4"
    assert alignments.get("mixed").fractions == "product:0.6,feedback:0.2,kolen_pollack:0.2"


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ("", "Expected rules and fractions"),
        ("product", "Expected rules and fractions"),
        ("product:0.5 feedback:0.5", "Expected rules and fractions"),
        ("product(expansion=2:1", "Expected rules and fractions"),
        ("product:0.5,,feedback:0.5", "Expected rules and fractions"),
        (None, "Expected rules and fractions"),
        (0.5, "Expected rules and fractions"),
        ({}, "Expected rules and fractions"),
        (["product"], "Expected rules and fractions"),
        ({"product": 0.6, "feedback": 0.2}, "sum to 1.*which sum to 0.8"),
        ({"product": 0.6, "feedback": 0.6}, "sum to 1.*which sum to 1.2"),
        ({"product": 1.0, "feedback": 0.0}, "fractions of a layer's units in .0, 1.*Received: 0.0"),
        ({"product": 1.5, "feedback": -0.5}, "Received: 1.5"),
        ({"product": float("nan")}, "Received: nan"),
        ({"product": True}, "Received: True"),
        ({"product": "half"}, "Received: 'half'"),
        ("prodct:1", "did you mean 'product'"),
        ("product(expnsion=2):1", "did you mean 'expansion'"),
        ("product(expansion):1", "options as name=value"),
        ("product(expansion=0.5):1", "expansion >= 1"),
        ("product(factored=maybe):1", "True or False for factored"),
        ("kolen_pollack(decay_coef=much):1", "a finite number or a schedule"),
        ("direct:1", "rules of single layers.*Received: 'direct'"),
        ("frozen:1", "rules of single layers.*Received: 'frozen'"),
        ("phaseless:1", "without noise on the layer's input.*Received: 'phaseless'"),
        ("mixed:1", "Received: 'mixed'"),
        ("backprop:1", "Received: 'backprop'"),
    ],
)
def test_what_is_refused(fractions, message):
    with pytest.raises((ValueError, TypeError), match=message):
        alignments.Mixed(fractions=fractions)


def test_what_groups_cannot_have_is_refused():
    with pytest.raises(ValueError, match="Expected density=1 with the rule 'mixed'"):
        alignments.Mixed(density=0.5)
    schedule = optimizers.rate_scheduler.Coefficient(value=0.1, steps_per_epoch=2, train_epochs=2.0)
    with pytest.raises(ValueError, match="Expected numbers as coefficients.*decay_coef"):
        alignments.Mixed(fractions=[(alignments.KolenPollack(decay_coef=schedule), 1.0)])
    layer = layers.EinsumDense("abc,cde->abde", (2, 2, 3), alignment=alignments.Mixed(
        fractions="mirror:0.5,feedback:0.5"))  # fmt: skip
    with pytest.raises(ValueError, match="looks at kernels alone.*'mirror' in a layer of the map"):
        layer.build((3, 2, 5))


def test_without_a_tied_group_no_gradient_of_j_reaches_b():
    rule = alignments.Mixed(fractions={"feedback": 0.5, "symmetric": 0.5})
    assert not rule.tie_grad
    layer = built(layers.Dense, rule, (3, 5), units=4)
    found = measure(layer, tf.constant(draw((3, 5))), draw((3, 4), 1))
    names = {name for name in found.of_j if name.startswith("backward")}
    assert len(names) == 2 and all(found.of_j[name] is None for name in names)
    reached = {name for name, g in found.of_r.items() if g is not None}
    assert reached == {"backward_kernel_1_symmetric"}


@pytest.mark.parametrize(("units", "counts"), [(1, [1]), (3, [2, 1]), (4, [2, 1, 1])])
def test_small_layers_have_the_groups_that_get_a_unit(units, counts):
    layer = built(layers.Dense, "mixed", (None, 5), units=units)
    found = [part.last - part.first for _, part in
             layer.alignment.parts(layer.linear(), tuple(layer.kernel.shape))]  # fmt: skip
    assert found == counts
    assert layer.backward_kernel_value().shape == (5, units)


def test_groups_start_at_the_scale_of_the_layer():
    layer = built(layers.Dense, alignments.Mixed(fractions={"feedback": 0.9, "symmetric": 0.1}),
                  (None, 300), units=300)  # fmt: skip
    b = layer.backward_kernel_value().numpy()
    for part in (b[:, :270], b[:, 270:]):
        assert part.std() == pytest.approx(np.sqrt(2.0 / 600), rel=0.02)
    assert abs(np.corrcoef(np.ravel(b), np.ravel(layer.kernel))[0, 1]) < 0.02


def test_a_group_moves_its_part_and_draws_its_own():
    layer = built(layers.Dense, alignments.Mixed(
        fractions="moving_average(tau=1.0):0.5,sign_symmetry(magnitude=batch_random):0.25,"
        "sign_symmetry(magnitude=batch_random):0.25"), (3, 5), units=8)  # fmt: skip
    before = layer.backward_kernel_value().numpy()
    layer(draw((3, 5)), training=True)
    after = layer.backward_kernel_value().numpy()
    w = layer.kernel.numpy()
    np.testing.assert_allclose(after[:, :4], w[:, :4], rtol=1e-6)
    assert np.abs(before[:, :4] - w[:, :4]).max() > 0.1
    np.testing.assert_array_equal(np.sign(after[:, 4:]), np.sign(w[:, 4:]))
    assert not np.isin(np.abs(after[:, 4:6]), np.abs(after[:, 6:])).any()


def test_every_group_goes_to_its_optimizer():
    """A tied group's B takes W's steps, another's those of R's optimizer; fixed ones take none."""
    mixed = alignments.Mixed(
        fractions={"kolen_pollack": 0.25, "mirror": 0.25, "feedback": 0.25, "moving_average": 0.25}
    )
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(8, "relu", alignment=mixed), layers.Dense(4)]
    )
    second = keras.optimizers.SGD(0.0)
    model.compile(
        optimizers.RoutedOptimizer(optimizers.get("gd", learning_rate=0.1), second), "mse"
    )
    layer = model.layers[0]
    trainable = {v.name for v in layer.trainable_variables}
    assert trainable == {"kernel", "bias", "backward_kernel_0_kolen_pollack",
                         "backward_kernel_1_mirror"}  # fmt: skip
    before = {v.name: v.numpy() for v in layer.variables}
    model.fit(draw((16, 5)), draw((16, 4), 1), verbose=0)
    moved = {v.name for v in layer.variables if np.any(v.numpy() != before[v.name])}
    expected = {"kernel", "bias", "backward_kernel_0_kolen_pollack", "noise_state"}
    assert moved == expected | {"backward_kernel_3_moving_average"}
    assert [v.name for v in second._trainable_variables] == ["backward_kernel_1_mirror"]


def settings(*given):
    return config.validate(config.parsed(["train.py", "--alignment=mixed", *given]))


def test_on_the_command_line():
    text = "product(factored=false):0.6,feedback:0.4"
    made = settings(f"--fractions={text}")
    assert made.rule.make() == alignments.Mixed(fractions=text)
    assert config.flag_lines(made)["fractions"] == f"--fractions={text}"
    assert config.flag_lines(settings())["fractions"].startswith("--fractions=product:0.6,")
    for given, message in (
        (["--fractions=product:0.6"], "--alignment=mixed: Expected fractions that sum to 1"),
        ([f"--fractions={text}", "--optimizer=adam"], "--optimizer: expected gd or momentum"),
        (["--decay_coef=0.1"], "--decay_coef: expected an option of the rule mixed"),
        (["--fractions=feedback:1", "--alignment_optimizer=gd"], "--alignment_optimizer: expected"),
    ):
        with pytest.raises(config.UsageError, match=message):
            settings(*given)


def test_behind_a_relu_of_its_own_a_group_applies_it():
    mixed = alignments.Mixed(fractions="mirror(activation_forward=true):0.5,feedback:0.5")
    first, second = mixed.before("relu").rules
    assert first.activation_fn_override == "relu"
    assert second == alignments.Feedback()


def test_doubts_name_the_group():
    with pytest.warns(alignments.AlignmentWarning, match="KolenPollack: both kernels"):
        mixed = alignments.Mixed(fractions="kolen_pollack(decay_coef=0.0):0.5,feedback:0.5")
    assert [text.partition(":")[0] for text in mixed.doubts()] == ["kolen_pollack"]
