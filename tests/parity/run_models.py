"""Golden cases of the models: variables, counts, logits, losses and gradient norms.

What differs by design, and is accounted for from the layers of our own model:

- The original makes a trainable backward kernel for every layer and rule. Here backpropagation
  has none, and one that no rule trains is not trainable.
- The original registers an alignment loss for every layer with a rule, a zero where the rule has
  none; and it has them in inference mode too.
- Its v2 calls the groups of blocks `block_layer`; both versions call them `block_group` here.
"""

import re

import keras
import numpy as np
import tensorflow as tf

from neural_alignment import models
from neural_alignment.layers import Conv2D, Dense, aligned_layers, training_step
from neural_alignment.models.normalization import BatchNormalization
from tests.parity.rules import dense_layout, from_spec, rule


def run(case, inputs, golden):
    """Outputs of a case by name."""
    if case["kind"] == "structure":
        return _structure(case)
    return _forward(case, inputs, golden)


# The model, and its variables by the original's names.


def _build(case, alignment):
    kwargs, shape = dict(case["kwargs"]), case["input_shape"][1:]
    if case["model"] == "fc":
        name, known = "fc", {"layers_list": (), "activation": None}
    elif case["model"] == "conv":
        name, shape, known = "conv", (28, 28, 1), {"filters_list": (), "kernels_list": ()}
    else:
        assert case["model"] == "resnet", f"no model {case['model']!r}"
        name = f"resnet{kwargs.pop('resnet_size', 50)}{'_v2' if kwargs.get('use_v2') else ''}"
        known = {"bn_trainable": True, "l2": 1e-4}
        if not kwargs.get("regularize_weights", True):
            kwargs["l2"] = 0.0
        if kwargs.get("tf_layers"):
            alignment = None
    # The original takes any keyword, and ignores those that a model has no use for.
    known["num_classes"] = 1000 if case["model"] == "resnet" else 10
    chosen = known | {key: value for key, value in kwargs.items() if key in known}
    return models.get(name, input_shape=shape, alignment=alignment, **chosen)


def _original_name(case, name):
    """The original's name of a layer of ours."""
    name = re.sub(r"^(block_group\d_\d+)_|_(?=batch_normalization$)", r"\1/", name)
    return name.replace("block_group", "block_layer") if case["kwargs"].get("use_v2") else name


def _variables(case, model):
    """The original's name (without ":0") -> our variable, the layer it is of."""
    found = {}
    for layer in model.layers:
        for variable in layer.variables:
            leaf = "forward_kernel" if variable.name == "kernel" else variable.name
            found[f"{_original_name(case, layer.name)}/{leaf}"] = (variable, layer)
    return found


def _bare(original):
    """A variable's name as `_variables` has it; TF's own layers have a scope of their own."""
    name = original.removesuffix(":0")
    return re.sub(r"/(conv2d|dense)/(kernel|bias)$", _from_native, name)


def _from_native(match):
    leaf = match.group(2)
    return f"/{'forward_kernel' if leaf == 'kernel' else leaf}"


def _without_backward_kernel(model):
    """Layers of ours for which the original makes a backward kernel that we do not need."""
    return [
        layer
        for layer in model.layers
        if isinstance(layer, Conv2D | Dense) and layer.alignment is None
    ]


def _fixed_backward_kernels(model):
    """Backward kernels that are trainable in the original and, as no rule trains them, not here."""
    return [
        layer.backward_kernel
        for layer in aligned_layers(model)
        if not layer.backward_kernel.trainable
    ]


def _size(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


# Structure.


def _structure(case):
    name = case["alignment"]
    alignment = from_spec(case["alignment_spec"]) if case.get("alignment_spec") else None
    if name is not None and alignment is None:
        alignment = rule(name)
    model = _build(case, alignment)
    native = case["kwargs"].get("tf_layers", False)
    absent = [] if native else _without_backward_kernel(model)
    _check_variables(case, model, absent)
    assert [case["logits_shape"][0], *model.output_shape[1:]] == case["logits_shape"]
    regularized = {
        key
        for key, (variable, _) in _variables(case, model).items()
        if getattr(variable, "regularizer", None) is not None
    }
    assert regularized == {_bare(key) for key in case["regularized"]}
    forward, backward = _kernel_sizes(model, absent)
    assert (forward, backward) == (
        case["n_params_forward_kernels"],
        case["n_params_backward_kernels"],
    )
    added = [layer.kernel for layer in absent]
    trained = added + _fixed_backward_kernels(model)
    n_losses, n_updates = _trace(case, model)
    return {
        "counts": np.array(
            [
                len(model.variables) + len(added),
                len(model.trainable_variables) + len(trained),
                _size(model.variables) + _size(added),
                _size(model.trainable_variables) + _size(trained),
                n_losses,
                len(model.losses),
                n_updates,
            ]
        )
    }


def _kernel_sizes(model, absent):
    layers = [layer for layer in model.layers if isinstance(layer, Conv2D | Dense)]
    forward = _size(layer.kernel for layer in layers)
    backward = _size(layer.backward_kernel for layer in layers if layer.alignment is not None)
    return forward, backward + _size(layer.kernel for layer in absent)


def _check_variables(case, model, absent):
    """Names, shapes and trainability of every variable are the original's."""
    found = _variables(case, model)
    no_kernel = {_original_name(case, layer.name): layer for layer in absent}
    seen = set()
    for original, shape, trainable in case["variables"]:
        key = _bare(original)
        site, _, leaf = key.rpartition("/")
        if leaf == "backward_kernel" and site in no_kernel:
            ours, can_train = no_kernel[site].kernel, True
        else:
            assert key in found, f"{case['name']}: no variable {key}"
            seen.add(key)
            ours = found[key][0]
            can_train = ours.trainable or leaf == "backward_kernel"
        is_dense_backward = leaf == "backward_kernel" and len(shape) == 2
        assert tuple(reversed(shape) if is_dense_backward else shape) == tuple(ours.shape), key
        assert can_train == trainable, key
    assert seen == set(found), f"variables the original has not: {set(found) - seen}"


def _trace(case, model):
    """Alignment losses and changed moving statistics of one training call."""
    x = np.random.RandomState(0).standard_normal(case["input_shape"]).astype(np.float32)
    moving = [
        variable
        for layer in model.layers
        if isinstance(layer, BatchNormalization)
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
    before = [variable.numpy() for variable in moving]
    with training_step(0) as step:
        model(_as_images(x, model), training=True)
    changed = sum(
        not np.array_equal(old, new.numpy()) for old, new in zip(before, moving, strict=True)
    )
    silent = [layer for layer in aligned_layers(model) if not layer.alignment.has_loss]
    return len(step.losses) + len(silent), changed


def _as_images(x, model):
    return tf.reshape(tf.constant(x), (len(x), *model.input_shape[1:]))


# Forward and backward.


def _forward(case, inputs, golden):
    model = _build(case, from_spec(case["alignment_spec"]))
    found = _variables(case, model)
    _set_weights(case, golden, found)
    x, labels = golden.model_input(case)
    np.testing.assert_array_equal(labels, inputs["labels"])
    np.testing.assert_array_equal(x.ravel()[: inputs["input_head"].size], inputs["input_head"])
    x = _as_images(x, model)
    outputs = {"logits_eval": model(x, training=False)}
    eval_losses = _inference_losses(model, x)
    with tf.GradientTape(persistent=True) as tape:
        with training_step(0) as step:
            logits = model(x, training=True)
        j = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
        l2 = tf.add_n(model.losses) if model.losses else tf.zeros(())
        r = tf.add_n([loss for _, loss in step.losses]) if step.losses else tf.zeros(())
        objective = j + l2
    outputs |= {"logits_train": logits, "J": j, "L2": l2, "R": r}
    outputs["R_per_layer"] = _per_layer(case, model, step.losses)
    outputs["R_per_layer_eval"] = _per_layer(case, model, eval_losses)
    outputs["grad_norm_J"] = _norms(case, found, tape, objective, case["grad_none_J"])
    outputs["grad_norm_R"] = _norms(case, found, tape, r, case["grad_none_R"])
    for name in case["outputs"]:
        if name.startswith("after_update."):
            site, _, leaf = name.removeprefix("after_update.").rpartition(".")
            outputs[name] = found[f"{site.replace('.', '/')}/{leaf}"][0].numpy()
    return outputs


def _set_weights(case, golden, found):
    """Sets every variable; a backward kernel that we do not need has nowhere to go."""
    left = set(found)
    for original, value in golden.model_weights(case):
        key = _bare(original)
        if key in found:
            variable, layer = found[key]
            is_dense = isinstance(layer, Dense)
            variable.assign(dense_layout(key, value) if is_dense else value)
            left.remove(key)
        else:
            assert key.endswith("/backward_kernel"), f"no variable {key}"
    assert not left, f"not set: {left}"


def _inference_losses(model, x):
    """R of every layer with the moving statistics in place of the batch's."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.trainable = False
    with training_step(0) as step:
        model(x, training=True)
    for layer in norms:
        layer.trainable = True
    return step.losses


def _per_layer(case, model, losses):
    """R by layer in the original's order; 0 where the rule has none."""
    by_site = {_original_name(case, path): loss for path, loss in losses}
    assert len(by_site) == len(losses)
    sites = [
        _bare(name).rpartition("/")[0]
        for name, _, _ in case["variables"]
        if name.endswith("/backward_kernel:0")
    ]
    assert set(by_site) <= set(sites)
    return np.array([float(by_site.get(site, 0.0)) for site in sites], np.float32)


def _norms(case, found, tape, target, without_path):
    """Frobenius norm of the gradient of every variable that the original trains; 0 for none."""
    names = [_bare(name) for name in case["trainable"]]
    ours = {name: found[name][0] for name in names if name in found}
    gradients = tape.gradient(target, {name: v.value for name, v in ours.items()})
    norms = np.array(
        [0.0 if gradients.get(name) is None else float(tf.norm(gradients[name])) for name in names]
    )
    excluded = {_bare(name) for name in without_path}
    reached = [n for n, norm in zip(names, norms, strict=True) if n in excluded and norm]
    assert not reached, f"a gradient where the original has none: {reached}"
    return norms
