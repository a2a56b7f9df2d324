"""One call of one layer with everything the tests look at."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from neural_alignment.alignments import Alignment, ProjectionOptions
from neural_alignment.alignments.projections import Projections
from neural_alignment.layers import training_step
from tests.alignments import reference, reference_maps

# Where `measure` and what it is compared with take their random numbers.
STEP, SEED = 7, 3


@dataclasses.dataclass
class Measured:
    """Outputs, R and the gradients of J = sum(dy * y) and of R; None is no gradient."""

    outputs: tf.Tensor
    loss: tf.Tensor | None
    of_j: dict
    of_r: dict


def sources(layer, x) -> dict:
    """The input and every float weight by name, as tensors a tape can watch."""
    weights = {w.name: w.value for w in layer.weights if "int" not in w.dtype}
    return {"x": x, **weights}


def measure(layer, x, dy, step=STEP, seed=SEED) -> Measured:
    """Runs the layer in training mode inside a `training_step`; its weights stay as they are."""
    named = sources(layer, x)
    rule = getattr(layer, "alignment", None)
    moves = rule is not None and rule.updates_itself
    moved = [v for site in layer.sites for v in site.variables.values()] if moves else []
    before = [tf.identity(variable.value) for variable in moved]
    with tf.GradientTape(persistent=True) as tape:
        for tensor in named.values():
            tape.watch(tensor)
        with training_step(step, seed) as active:
            outputs = layer(x, training=True)
        j = tf.reduce_sum(tf.cast(outputs, "float32") * tf.cast(dy, "float32"))
        loss = tf.add_n([value for _, value in active.losses]) if active.losses else None
    for variable, value in zip(moved, before, strict=True):
        variable.assign(value)
    of_r = dict.fromkeys(named) if loss is None else tape.gradient(loss, named)
    return Measured(outputs, loss, tape.gradient(j, named), of_r)


def built(case, alignment, seed=0, **changes):
    """The layer of a case, built, with reproducible weights."""
    keras.utils.set_random_seed(seed)
    layer = case.make(alignment, **changes)
    layer.build(case.input_shape)
    return layer


def output_shape(case):
    """Shape of the layer's output, the batch first."""
    # Built: in Keras 3.8 EinsumDense knows it then only.
    return built(case, None).compute_output_shape(case.input_shape)


def numpy(value) -> np.ndarray | None:
    """A float64 array of a tensor; None stays None."""
    return None if value is None else np.asarray(tf.cast(value, "float64"))


def weights(layer) -> dict:
    """Every float weight by name, as a float64 array."""
    return {w.name: np.asarray(w.value, "float64") for w in layer.weights if w.dtype != "int32"}


def values_at(site, values) -> dict:
    """A site's values by the rule's own names for them: "kernel", "backward_kernel", ..."""
    names = {"kernel": site.place.kernel}
    names |= {name: variable.name for name, variable in site.variables.items()}
    return {name: values[at] for name, at in names.items()}


def trained(site) -> tuple[str, ...]:
    """The names of what the rule trains."""
    return tuple(v.name for v in site.variables.values() if v.trainable)


def groups(site, own):
    """(rule, map, its values) of every rule at a site: one, or those of a mixed one's groups.

    The kernel of a group is that of its units, turned with its outputs last.
    """
    if site.alignment.name != "mixed":
        return [(site.alignment, site.linear, own)]
    kernel = tf.constant(own["kernel"], "float64")
    return [
        (group.rule, units, group.own(own) | {"kernel": units.columns(kernel).numpy()})
        for group, units in site.alignment.parts(site.linear, tuple(kernel.shape))
    ]


def map_at(site):
    """The NumPy map of a site."""
    return reference_maps.map_of(site.layer, site.place.name)


def backward_kernel(site, values):
    """B from the weights; where no equation is written here, as the rule makes it."""
    own = values_at(site, values)
    mask = own.get("backward_mask", 1.0)
    if "backward_kernel_rq" in own:
        return own["backward_kernel_rq"]
    if site.alignment.name == "product":
        turned = (own["backward_kernel_r"] * mask) @ own["backward_kernel_q"]
        return map_at(site).from_outputs_last(turned, own["kernel"].shape)
    if type(site.alignment).backward_kernel is Alignment.backward_kernel:
        return own["backward_kernel"] * mask
    return numpy(backward_kernel_of_its_own(site, own))


def backward_kernel_of_its_own(site, own):
    """B as the rule itself makes it, in float64."""
    tensors = {name: tf.constant(value, "float64") for name, value in own.items()}
    return site.alignment.backward_kernel(
        tensors["kernel"], tensors, noise_seed(site), linear=site.linear
    )


def noise_seed(site):
    """The seed of the step's draws at a site; None is none."""
    if not site.alignment.is_random:
        return None
    with training_step(STEP, SEED):
        return site.noise_seed(training=False)


def projections(layer, x, values) -> list:
    """Input and projection of every site."""
    found, x = [], x.astype("float64")
    for site in layer.sites:
        projection = map_at(site).apply(x, values[site.place.kernel])
        found.append((x, projection))
        x = projection
    return found


def outputs(layer, x, values):
    """The layer's outputs, from the equations."""
    projection = projections(layer, x, values)[-1][1] + bias_for_outputs(layer, values)
    return reference.ACTIVATIONS[layer.activation.__name__](projection)


def upstream_errors(layer, x, dy, values, kernel=backward_kernel) -> list:
    """The error at the layer's input, then at every site's projection."""
    errors = [dy * (1.0 - outputs(layer, x, values) ** 2)]  # of a tanh
    inputs = [at for at, _ in projections(layer, x, values)]
    for site, at in zip(layer.sites[::-1], inputs[::-1], strict=True):
        errors.insert(0, map_at(site).transpose(at.shape, kernel(site, values), errors[0]))
    return errors


def noise(site, shape):
    """The noise input of the step, made from its random bits; None is no noise."""
    distribution = getattr(site.alignment, "input_distribution", None)
    if distribution is None:
        return None
    seed = noise_seed(site)
    words = shape if distribution == "uniform" else (2, (np.prod(shape) + 1) // 2)
    bits = tf.random.stateless_uniform(
        words, seed, minval=None, maxval=None, dtype="uint32", alg="philox"
    )
    return reference.noise(site.alignment, shape, bits.numpy())


def bias_for_outputs(layer, values):
    """The bias, broadcastable to the output."""
    bias = values["bias"]
    first = getattr(layer, "data_format", None) == "channels_first"
    return bias.reshape(-1, *(1,) * layer.rank) if first else bias


def reference_loss(layer, x, values):
    """R of the layer at other weights, in float64; inputs of its sites are those at its own.

    From the equations where they are written here; the R of a rule that has none is its own.
    """
    total = 0.0
    for site, (at, _) in zip(layer.sites, projections(layer, x, weights(layer)), strict=True):
        own = values_at(site, values)
        if not reference.has_equations(layer.alignment):
            total += loss_of_its_own(site, at, own, values)
            continue
        factor = own.get("backward_kernel_rq")
        if "backward_kernel_r" in own:
            factor = own["backward_kernel_r"] * own.get("backward_mask", 1.0)
        total += reference.alignment_loss(
            layer.alignment,
            map_at(site),
            at,
            own["kernel"],
            backward_kernel(site, values),
            bias=bias_for_outputs(layer, values) if site.place.ends else None,
            activation=layer.activation.__name__ if site.place.ends else "linear",
            noise=noise(site, at.shape),
            r=factor,
        )
    return total


def loss_of_its_own(site, at, own, values):
    """R as the rules' own primitives have it, in float64; `R` itself is made in float32."""
    bias = bias_for_outputs(site.layer, values) if site.place.ends else None
    total = 0.0
    for rule, linear, mine in groups(site, own):
        if not rule.has_loss:
            continue
        tensors = {name: tf.constant(value, "float64") for name, value in mine.items()}
        made = rule.backward_kernel(tensors["kernel"], tensors, noise_seed(site), linear=linear)
        p = Projections(
            rule if isinstance(rule, ProjectionOptions) else ProjectionOptions(),
            linear=linear,
            inputs=tf.constant(at, "float64"),
            forward_kernel=tensors["kernel"],
            backward_kernel=made,
            bias=None if bias is None else tf.constant(bias, "float64"),
            activation=site.activation,
            seed=noise_seed(site),
        )
        for name, value in rule.primitives(p, tensors).items():
            coefficient = getattr(rule, f"{name}_coef")
            total += float(coefficient) * float(value()) if coefficient != 0.0 else 0.0
    return total
