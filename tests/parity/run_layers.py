"""Golden cases of the layers: outputs, losses and gradients of one layer or a stack."""

import keras

from neural_alignment.layers import Conv2D, Dense, training_step
from tests.backends.gradients import gradients
from tests.parity.rules import dense_layout, from_spec


def run(case, inputs, golden):
    alignment = from_spec(case["alignment_spec"])
    if case["layer"] == "stack":
        return _stack(case, inputs, alignment)
    layer = _single(case["layer"], case["config"], alignment)
    names = {"W": "kernel", "B": "backward_kernel", "b": "bias"}
    is_dense = case["layer"] == "dense"
    values = {name: inputs[name] for name in names if name in inputs}
    x = inputs["x"]
    layer.build(x.shape)
    variables = _assign(layer, {names[n]: v for n, v in values.items()}, is_dense)
    named = {short: variables[long] for short, long in names.items() if long in variables}
    outputs, found = _losses_and_gradients(
        lambda x: layer(x, training=True), [layer], {"x": x, **named}
    )
    del outputs["R_per_layer"]
    for prefix, of in found.items():
        for name in case["outputs"]:
            if name.startswith(f"d{prefix}_d"):
                gradient = of.get(name.removeprefix(f"d{prefix}_d"))
                outputs[name] = _original_layout(gradient, is_dense and name.endswith("_dB"))
    return outputs


def _stack(case, inputs, alignment):
    layers = [_of_stack(spec, alignment) for spec in case["spec"]]
    x = inputs["x"]

    def forward(x):
        for layer in layers:
            if isinstance(layer, Dense) and len(x.shape) > 2:
                x = keras.ops.reshape(x, (x.shape[0], -1))
            x = layer(x, training=True)
        return x

    forward(keras.ops.convert_to_tensor(x))
    named = {"x": x}
    for i, layer in enumerate(layers):
        prefix = f"l{i}_"
        values = {
            key.removeprefix(prefix).replace("forward_kernel", "kernel"): value
            for key, value in inputs.items()
            if key.startswith(prefix)
        }
        for name, variable in _assign(layer, values, isinstance(layer, Dense)).items():
            original = "forward_kernel" if name == "kernel" else name
            named[f"{prefix}{original}"] = variable
    outputs, found = _losses_and_gradients(forward, layers, named)
    for prefix, of in found.items():
        for name in case["outputs"]:
            if name.startswith(f"d{prefix}_d."):
                key = name.removeprefix(f"d{prefix}_d.")
                is_dense_b = key.endswith("backward_kernel") and isinstance(
                    layers[int(key[1 : key.index("_")])], Dense
                )
                outputs[name] = _original_layout(of.get(key), is_dense_b)
    return outputs


def _losses_and_gradients(forward, layers, named):
    """J = sum(out^2) / 2, R, L2, and the gradients of J and of their total T."""
    ops = keras.ops

    def losses(values):
        with training_step(0) as step:
            out = forward(values["x"])
        j = ops.sum(ops.square(out)) / 2
        r = [loss for _, loss in step.losses]
        l2 = [ops.cast(loss, "float32") for layer in layers for loss in layer.losses]
        parts = {
            "J": j,
            "R": sum(r, ops.zeros(())),
            "L2": sum(l2, ops.zeros(())),
            "R_per_layer": ops.stack(r) if r else ops.zeros((len(layers),)),
        }
        return parts, {"out": out, **parts}

    def of_j(values):
        parts, other = losses(values)
        return parts["J"], other

    def of_total(values):
        parts, other = losses(values)
        return parts["J"] + parts["R"] + parts["L2"], other

    _, outputs, of = gradients(of_j, named)
    return outputs, {"J": of, "T": gradients(of_total, named)[2]}


def _original_layout(gradient, transpose):
    return gradient.T if transpose and gradient is not None else gradient


def _assign(layer, values, is_dense):
    """Sets the weights; backpropagation has no backward kernel to set."""
    variables = {}
    for name, value in values.items():
        if name == "backward_kernel" and layer.alignment is None:
            continue
        variable = getattr(layer, name)
        variable.assign(dense_layout(name, value) if is_dense else value)
        variables[name] = variable
    return variables


def _regularizer(config, name):
    scale = config.get(f"l2_{name}")
    return None if scale is None else keras.regularizers.L2(scale / 2)


def _single(kind, config, alignment):
    shared = {
        "activation": config["activation"],
        "use_bias": config["use_bias"],
        "kernel_regularizer": _regularizer(config, "kernel"),
        "bias_regularizer": _regularizer(config, "bias"),
    }
    if kind == "dense":
        return Dense(config["o"], alignment=alignment, **shared)
    # The original's alignment_relu: relu on the projections whatever the layer's own activation.
    if config.get("alignment_relu") and hasattr(alignment, "activation_fn_override"):
        alignment = alignment.replace(
            activation_fn_override=alignment.activation_fn_override or "relu"
        )
    return _conv(
        config["cout"], config["k"], config["strides"], config["padding"], alignment, shared
    )


def _of_stack(spec, alignment):
    if spec["kind"] == "dense":
        return Dense(spec["o"], activation=spec["act"], alignment=alignment)
    shared = {"activation": spec["act"]}
    return _conv(spec["cout"], spec["k"], spec["s"], spec["pad"], alignment, shared)


def _conv(filters, kernel_size, strides, padding, alignment, shared):
    strides = strides[1:3] if isinstance(strides, list) and len(strides) == 4 else strides
    return Conv2D(filters, kernel_size, strides, padding.lower(), alignment=alignment, **shared)
