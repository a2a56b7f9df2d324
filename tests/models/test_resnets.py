import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, models
from neural_alignment.layers import Conv2D, Dense, aligned_layers, training_step
from neural_alignment.models.normalization import BatchNormalization

# Trainable parameters with 1000 classes. resnet50 to 152 are torchvision's; torchvision's smaller
# ones have no projection in the first group, 4,224 parameters less. resnet50_v2 to 152_v2 are
# those of pytorch-image-models.
IMAGENET = {
    "resnet18": 11_693_736,
    "resnet34": 21_801_896,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet200": 64_673_832,
    "resnet18_v2": 11_691_816,
    "resnet34_v2": 21_799_976,
    "resnet50_v2": 25_549_352,
    "resnet101_v2": 44_541_480,
    "resnet152_v2": 60_185_128,
    "resnet200_v2": 64_666_152,
}
# With 10 classes: BioTorch's.
CIFAR = {"resnet20": 269_722, "resnet32": 464_154, "resnet44": 658_586, "resnet56": 853_018}
DEEPEST = ("resnet152", "resnet200", "resnet152_v2", "resnet200_v2")
SMALL = ("resnet18", "resnet18_v2", "resnet20")


def small(name, **options):
    return models.get(name, **{"input_shape": (32, 32, 3), "num_classes": 10} | options)


def unfilled(name, **options):
    """A model to look at; kernels need no random numbers then."""
    with pytest.MonkeyPatch.context() as patch:
        zeros = keras.initializers.Zeros()
        patch.setattr(keras.initializers, "VarianceScaling", lambda *args, **kwargs: zeros)
        return small(name, **options)


shared = functools.cache(unfilled)


def weighted(model):
    return [layer for layer in model.layers if isinstance(layer, Conv2D | Dense)]


def normalizations(model):
    return [layer for layer in model.layers if isinstance(layer, BatchNormalization)]


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        pytest.param(*each, marks=[pytest.mark.slow] if each[0] in DEEPEST else [])
        for each in (IMAGENET | CIFAR).items()
    ],
)
def test_parameters_and_names(name, parameters):
    model = unfilled(name, num_classes=1000 if name in IMAGENET else 10)
    assert count(model.trainable_variables) == parameters
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert len({variable.path for variable in model.variables}) == len(model.variables)
    # The depth counts the convolutions on the longest path, and the head.
    on_path = [la for la in weighted(model) if not la.name.endswith("_conv0")]
    assert len(on_path) == int(name.removeprefix("resnet").removesuffix("_v2"))


@pytest.mark.parametrize("name", ["resnet18_v2", "resnet20"])
def test_a_rule_doubles_the_kernels(name):
    model, plain = shared(name, alignment="symmetric"), shared(name)
    kernels = count(layer.kernel for layer in weighted(plain))
    assert count(model.trainable_variables) == count(plain.trainable_variables) + kernels


@pytest.mark.parametrize(
    ("name", "rule"),
    [("resnet18", "symmetric"), ("resnet18_v2", "symmetric")]
    + [("resnet20", rule) for rule in alignments.layer_names()],
)
def test_every_convolution_and_the_head_take_the_rule(name, rule):
    model = shared(name, alignment=rule)
    assert aligned_layers(model) == weighted(model)
    assert {layer.alignment.name for layer in weighted(model)} == {rule}


def with_relu(model):
    return [la.name for la in weighted(model) if la.alignment.activation_fn_override == "relu"]


@pytest.mark.parametrize(
    ("name", "inner", "stem"),
    [("resnet18", 1, True), ("resnet18_v2", 1, False), ("resnet50", 2, True),
     ("resnet50_v2", 2, False), ("resnet20", 1, True)],
)  # fmt: skip
def test_relu_is_the_rules_activation_where_normalisation_and_relu_follow(name, inner, stem):
    model = unfilled(name, alignment="mirror")
    got = set(with_relu(model))
    sites = {la.name.rpartition("_")[0] for la in weighted(model) if "_" in la.name}
    expected = {f"{site}_conv{i + 1}" for site in sites for i in range(inner)}
    assert got == expected | ({"conv0"} if stem else set())


def test_an_override_of_the_user_stays():
    rule = alignments.get({"name": "mirror", "activation_fn_override": "tanh"})
    model = unfilled("resnet18", alignment=rule)
    assert {la.alignment.activation_fn_override for la in weighted(model)} == {"tanh"}


@pytest.mark.parametrize("name", SMALL)
def test_layers_of_one_shape_start_apart(name):
    model = small(name, alignment="feedback")
    drawn = [k.numpy() for la in weighted(model) for k in (la.kernel, la.backward_kernel)]
    assert len({kernel.ravel()[:3].tobytes() for kernel in drawn}) == len(drawn)


def test_initial_scale():
    model = small("resnet18", num_classes=1000)
    kernel = model.get_layer("block_group4_1_conv2").kernel.numpy()
    assert np.std(kernel) == pytest.approx(np.sqrt(1 / (9 * 512)), rel=0.01)
    assert np.abs(kernel).max() < 3 * np.std(kernel)
    assert np.std(model.get_layer("dense").kernel.numpy()) == pytest.approx(0.01, rel=0.01)
    assert not model.get_layer("dense").bias.numpy().any()


def zero_gammas(model):
    return {
        la.name.removesuffix("_batch_normalization")
        for la in normalizations(model)
        if not la.gamma.numpy().any()
    }


def test_only_a_v1_blocks_last_normalisation_starts_at_zero():
    blocks = [f"block_group{group}_{i}" for group in (1, 2, 3, 4) for i in (0, 1)]
    assert zero_gammas(shared("resnet18")) == {f"{block}_conv2" for block in blocks}
    assert {name.rpartition("_")[2] for name in zero_gammas(shared("resnet50"))} == {"conv3"}
    assert len(zero_gammas(shared("resnet50"))) == 16
    assert zero_gammas(shared("resnet18_v2")) == zero_gammas(shared("resnet20")) == set()


@pytest.mark.parametrize(("name", "momentum"), [("resnet18", 0.9), ("resnet18_v2", 0.997)])
def test_normalisation_settings(name, momentum):
    for layer in normalizations(shared(name)):
        assert (layer.momentum, layer.epsilon) == (momentum, 1e-5)
        assert layer.unbiased_variance
    assert not any(
        layer.unbiased_variance for layer in normalizations(shared(name, unbiased_variance=False))
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50_v2", "resnet20"])
def test_strides_are_padded_by_the_window_alone(name):
    model = shared(name)
    for layer in weighted(model):
        if isinstance(layer, Dense) or layer.strides == (1, 1):
            continue
        assert layer.padding == "valid"
        margin = (layer.kernel_size[0] - 1) // 2
        if margin:
            padding = model.get_layer(f"{layer.name}_padding").padding
            assert padding == ((margin, margin), (margin, margin))
    halving = [la.name for la in weighted(model) if getattr(la, "strides", None) == (2, 2)]
    window = {"resnet18": "conv1", "resnet20": "conv1"}.get(name, "conv2")
    assert {n for n in halving if not n.endswith("conv0")} == {
        f"block_group{group}_0_{window}" for group in ((2, 3) if name == "resnet20" else (2, 3, 4))
    }


@pytest.mark.parametrize("after", [False, True])
def test_order_of_normalisation_and_relu(after):
    model = shared("resnet18", bn_after_relu=after)
    for site in ("conv0", "block_group1_0_conv1", "block_group4_1_conv1"):
        parts = [model.get_layer(f"{site}_{part}") for part in ("batch_normalization", "relu")]
        first, second = reversed(parts) if after else parts
        assert first.input is model.get_layer(site).output
        assert second.input is first.output
    # The normalisations that no ReLU follows keep their place before the sum.
    for site in ("block_group1_0_conv0", "block_group1_0_conv2"):
        norm = model.get_layer(f"{site}_batch_normalization")
        assert norm.input is model.get_layer(site).output
        assert any(norm.output is x for x in model.get_layer("block_group1_0_add").input)
    assert count(model.trainable_variables) == count(shared("resnet18").trainable_variables)


def test_v2_normalises_before_it_convolves():
    model = shared("resnet18_v2")
    relu = model.get_layer("block_group2_0_bn0_relu").output
    assert model.get_layer("block_group2_0_conv0").input is relu
    assert model.get_layer("block_group2_0_conv1_padding").input is relu
    outputs = [model.get_layer(f"block_group2_0_conv{i}").output for i in (0, 2)]
    added = model.get_layer("block_group2_0_add").input
    assert all(any(x is out for x in added) for out in outputs)
    assert model.get_layer("pool").input is model.get_layer("bnl4_relu").output


@pytest.mark.parametrize("name", SMALL)
def test_any_size(name):
    model = small(name, input_shape=(None, None, 3))
    for height, width in ((64, 64), (50, 37)):
        logits = model(np.zeros((2, height, width, 3), "float32"), training=True)
        assert logits.shape == (2, 10)
        assert np.isfinite(logits).all()


def test_decay_is_on_forward_kernels_and_the_heads_bias():
    model = small("resnet20", alignment="symmetric", l2=0.01)
    model.get_layer("dense").bias.assign(np.ones(10))
    decayed = [layer.kernel for layer in weighted(model)] + [model.get_layer("dense").bias]
    expected = sum(0.005 * np.sum(np.square(v.numpy())) for v in decayed)
    assert len(model.losses) == len(decayed)
    np.testing.assert_allclose(sum(model.losses), expected, rtol=1e-5)
    assert small("resnet20", l2=0.0).losses == []


def moving(model):
    return [v.numpy() for la in normalizations(model) for v in (la.moving_mean, la.moving_variance)]


def test_bn_trainable():
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
    model = small("resnet20", input_shape=(16, 16, 3))
    frozen = small("resnet20", input_shape=(16, 16, 3), bn_trainable=False)
    frozen.set_weights(model.get_weights())
    names = {v.path.split("/")[-1] for v in frozen.trainable_variables}
    assert names == {"kernel", "bias"}
    before = moving(frozen)
    np.testing.assert_allclose(frozen(x, training=True), model(x, training=True), atol=1e-4)
    for old, new in zip(before, moving(frozen), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all(not np.array_equal(old, new) for old, new in zip(before, moving(model), strict=True))


def test_a_saved_model_is_the_same(tmp_path):
    rule = alignments.get({"name": "mirror", "activation_forward": True, "decay_coef": 0.3})
    model = small("resnet20", alignment=rule, bn_after_relu=True, bn_trainable=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), loaded(x))
    assert json.dumps(loaded.get_config()) == json.dumps(model.get_config())
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]
    assert [la.alignment for la in aligned_layers(loaded)] == [
        la.alignment for la in aligned_layers(model)
    ]
    for saved, again in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(saved.numpy(), again.numpy())


def test_a_layers_loss_bears_its_name():
    model = small("resnet20", input_shape=(8, 8, 3), alignment="activation")
    with training_step(0) as step:
        model(np.ones((2, 8, 8, 3), "float32"), training=True)
    assert {path for path, _ in step.losses} == {la.name for la in weighted(model)}


def test_identity_and_projection_shortcuts():
    identity, projection = (shared("resnet20", shortcut=s) for s in ("identity", "projection"))
    x = np.arange(2 * 4 * 6 * 16, dtype="float32").reshape(2, 4, 6, 16)
    out = np.array(identity.get_layer("block_group2_0_shortcut")(x))
    assert out.shape == (2, 2, 3, 32)
    np.testing.assert_array_equal(out[..., 8:24], x[:, ::2, ::2])
    assert not out[..., :8].any()
    assert not out[..., 24:].any()
    added = count(projection.trainable_variables) - count(identity.trainable_variables)
    assert added == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    with pytest.raises(ValueError, match="identity, projection"):
        shared("resnet20", shortcut="none")


def test_logits_are_float32_in_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small("resnet20", input_shape=(16, 16, 3), alignment="symmetric")
        small_fc = models.get("fc", input_shape=(4,))
    finally:
        keras.config.set_dtype_policy(policy)
    logits = model(tf.ones((2, 16, 16, 3)), training=True)
    assert logits.dtype == small_fc(tf.ones((1, 4))).dtype == tf.float32
    assert model.get_layer("conv0").compute_dtype == "bfloat16"
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, None), (3072,)])
def test_not_an_image(shape):
    with pytest.raises(ValueError, match="shape of an image"):
        models.get("resnet18", input_shape=shape)
