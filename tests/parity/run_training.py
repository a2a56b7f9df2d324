"""Golden cases of training: fc on digits, one or two optimizers, delay, alternation, schedules."""

import numpy as np
import tensorflow as tf

from neural_alignment import models, optimizers
from neural_alignment.optimizers import rate_scheduler
from neural_alignment.training.step import Step
from tests.parity import run_schedules
from tests.parity.rules import COEFFICIENTS, dense_layout, from_spec

# One flag each for the original's optimizers; what it takes besides the learning rate.
OPTIMIZER_OPTIONS = {"momentum": {"use_nesterov": "nesterov", "momentum": "momentum"}}


def run(case, inputs, golden):
    rule = _with_schedules(case, from_spec(case["alignment_spec"]))
    model = models.get(
        "fc",
        input_shape=(64,),
        num_classes=10,
        layers_list=tuple(case["layers_list"]),
        activation=case["activation"],
        alignment=rule,
        l2=1e-6,
    )
    weights = _weights(model)
    for name, variable in weights.items():
        variable.assign(dense_layout(name, inputs[f"w0.{name}"]))
    loss_rate, alignment_rate = _rates(case)
    made = [
        _optimizer(name, options, rate)
        for (name, options, _), rate in zip(case["optimizers"], _learning_rates(case), strict=True)
    ]
    if not case["two_optimizers"]:
        made.append(None)
    step = Step(model, *made, loss_rate, alignment_rate)
    update = tf.function(step)
    outputs = {name: [] for name in case["outputs"] if name[:3] not in ("w1.", "wT.")}
    images, labels = golden.digits()
    learning_rates = _learning_rates(case)
    for t, index in enumerate(inputs["batch_index"]):
        x, y = tf.constant(images[index]), tf.constant(labels[index])
        before = _losses(model, x, y)
        loss, alignment_loss = update(x, y, tf.constant(t, tf.int64))[:2].numpy()
        assert abs(loss - before["model_loss"] - before["reg_loss"]) < 1e-5
        rates = [float(loss_rate(t)), float(alignment_rate(t))]
        before |= {
            "alignment_loss": alignment_loss,
            "total_loss": rates[0] * loss + rates[1] * alignment_loss,
            "rates": rates,
            "lrs": [float(rate(t)) for rate in learning_rates],
        }
        for name, values in outputs.items():
            values.append(before[name])
        if t == 0:
            first = _values(weights, "w1")
    outputs = {name: np.array(values) for name, values in outputs.items()}
    # Backpropagation and rules that never train it leave the backward kernel where it was.
    untouched = {
        f"{tag}.{name.removeprefix('w0.')}": value
        for name, value in inputs.items()
        for tag in ("w1", "wT")
        if name.endswith("backward_kernel") and rule is None
    }
    return outputs | first | _values(weights, "wT") | untouched


def _with_schedules(case, rule):
    schedules = case["coefficient_schedules"]
    if not schedules:
        return rule
    known = COEFFICIENTS[rule.name]
    return rule.replace(
        **{
            known[greek]: run_schedules._BUILD["build_alignment_coefficient_schedule"](**kwargs)
            for greek, kwargs in schedules.items()
        }
    )


def _rates(case):
    rates = run_schedules._BUILD["build_schedule"](**(case["rate_kwargs"] or {}))
    return rates["loss_rate"], rates["alignment_rate"]


def _learning_rates(case):
    if case.get("lr_schedules"):
        build = run_schedules._BUILD["build_lr_schedule"]
        return [build(**kwargs) for kwargs in case["lr_schedules"]]
    return [rate_scheduler.Constant(value=rate) for _, _, rate in case["optimizers"]]


def _optimizer(name, options, rate):
    named = {OPTIMIZER_OPTIONS[name][key]: value for key, value in options.items()}
    return optimizers.get(name, learning_rate=rate, **named)


def _losses(model, x, y):
    logits = model(x, training=False)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
    right = tf.equal(tf.argmax(logits, 1, tf.int32), y)
    return {
        "model_loss": float(tf.reduce_mean(cross_entropy)),
        "reg_loss": float(sum(model.losses)),
        "batch_acc": float(tf.reduce_mean(tf.cast(right, "float32"))),
    }


def _weights(model):
    named = {}
    for layer in model.layers:
        for variable in layer.weights:
            leaf = "forward_kernel" if variable.name == "kernel" else variable.name
            named[f"{layer.name}.{leaf}"] = variable
    return named


def _values(weights, tag):
    return {
        f"{tag}.{name}": dense_layout(name, variable.numpy()) for name, variable in weights.items()
    }
