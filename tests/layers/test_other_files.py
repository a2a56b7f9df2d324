"""Weights that were saved under another rule: all of them are taken, or the file is refused."""

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers

pytestmark = pytest.mark.backend

SHAPES = {"Dense": (None, 4), "Conv1D": (None, 6, 4), "SeparableConv1D": (None, 6, 4)}
MAKE = {
    "Dense": lambda rule, **more: layers.Dense(3, alignment=rule, name="it", **more),
    "Conv1D": lambda rule, **more: layers.Conv1D(3, 2, alignment=rule, name="it", **more),
    "SeparableConv1D": lambda rule, **more: layers.SeparableConv1D(
        3, 2, alignment=rule, name="it", **more
    ),
}
NOISE = alignments.Mirror(input_distribution="normal")
SPARSE = alignments.Feedback(density=0.5)
# The rule that saved, the rule that loads, what would be lost: by the rule's own names.
FILES = {
    "a mask of B": (SPARSE, "feedback", "backward_mask"),
    "a mask of B, and B": (SPARSE, None, "backward_mask"),
    "a mask of W": (alignments.Feedback(forward_density=0.5), "feedback", "forward_mask"),
    "magnitudes": (alignments.SignSymmetry(magnitude="fixed_random"), "sign_symmetry",
                   "backward_magnitude"),
    "B": ("symmetric", None, "backward_kernel"),
    "B of a rule that makes it": ("feedback", "sign_symmetry", "backward_kernel"),
    "factors": ("product", None, "backward_kernel_r"),
    "another rule's B": ("feedback", "kolen_pollack", None),
    "a noise state": (NOISE, "symmetric", None),
    "no rule": (None, None, None),
}  # fmt: skip


def saved(layer):
    store = {}
    layer.save_own_variables(store)
    return {name: np.array(keras.ops.convert_to_numpy(value)) for name, value in store.items()}


def built(name, rule, **more):
    layer = MAKE[name](rule, **more)
    layer.build(SHAPES[name])
    return layer


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("name", MAKE)
def test_nothing_is_lost(name, case):
    rule, other, lost = FILES[case]
    source, target = built(name, rule), built(name, other)
    before, store = saved(target), saved(source)
    if lost is None:
        target.load_own_variables(store)
        for key, value in saved(target).items():
            np.testing.assert_array_equal(value, store[key])
        return
    # Of a separable convolution the names have the kernel's in them.
    head, mark, tail = lost.partition("backward_")
    wanted = f"{head}{mark}(depthwise_)?{tail}" if mark else f"(depthwise_)?{lost}"
    with pytest.raises(ValueError, match=f"layer 'it' .* Received: .*{wanted}.* would be lost"):
        target.load_own_variables(store)
    for key, value in saved(target).items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", MAKE)
def test_a_bias_is_not_lost_either(name):
    source, target = built(name, "feedback"), built(name, "feedback", use_bias=False)
    with pytest.raises(ValueError, match="Received: [12] beside them, which would be lost"):
        target.load_own_variables(saved(source))


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_files_of_whole_models(tmp_path):
    def model(rule):
        return keras.Sequential([keras.Input((4,)), MAKE["Dense"](rule)])

    model(SPARSE).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match="backward_mask beside them, which would be lost"):
        model("feedback").load_weights(tmp_path / "m.weights.h5")
    model(SPARSE).load_weights(tmp_path / "m.weights.h5")


def test_quantizing_a_model_passes_over_rules_and_says_so():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, MAKE["Dense"]("feedback")(inputs))
    before = saved(model.get_layer("it"))
    with pytest.warns(UserWarning) as told:
        model.quantize("int8")
    assert any("layer 'it' (rule 'feedback'), which stays" in str(one.message) for one in told)
    with pytest.raises(NotImplementedError, match=r"Quantize strip\(model\)"):
        model.get_layer("it").quantize("int8", type_check=False)
    assert model.get_layer("it").quantization_mode is None
    for key, value in saved(model.get_layer("it")).items():
        np.testing.assert_array_equal(value, before[key])
