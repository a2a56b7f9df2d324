"""Independent float64 NumPy: primitives and R, written from the equations."""

import numpy as np

ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
}


def _standardize(x, centered, normalized, batch_centered):
    axes = tuple(range(1, x.ndim))
    if centered or normalized:
        x = x - x.mean(axis=axes, keepdims=True)
    if normalized:
        x = x / np.sqrt(np.maximum((x**2).sum(axis=axes, keepdims=True), 1e-12))
    return x - x.mean(axis=0) if batch_centered else x


def _mean_sum(x):
    return x.mean(axis=0).sum()


# The rules whose R is written here; others are compared with their own R (`measure`).
WITH_EQUATIONS = (
    "symmetric", "kolen_pollack", "product", "activation", "mirror", "information",
)  # fmt: skip


def has_equations(rule) -> bool:
    """Whether R of a rule is written here."""
    return rule.name in WITH_EQUATIONS or not rule.has_loss


def alignment_loss(rule, linear, x, w, b, *, bias=None, activation="linear", noise=None, r=None):
    """R of one layer.

    Args:
        rule: the options are read from it, nothing else.
        linear: of `reference_maps`.
        x: input.
        w: forward kernel.
        b: backward kernel.
        bias: broadcastable to the output.
        activation: a name.
        noise: the input's replacement, or None.
        r: product's trained factor.
    """
    if not rule.has_loss:
        return 0.0
    if rule.name == "kolen_pollack":
        return rule.decay_coef * ((w**2).sum() + (b**2).sum())
    if rule.name == "product":
        return rule.decay_coef * ((w**2).sum() + (r**2).sum())
    if rule.name == "symmetric":
        decay = (w**2).sum() + (b**2).sum()
        return rule.decay_coef * decay - rule.self_coef * (w * b).sum()

    phi = ACTIVATIONS[rule.activation_fn_override or activation]
    x = _standardize(x if noise is None else noise, rule.center_input, rule.normalize_input, False)
    x_backward = x - x.mean(axis=0) if rule.batch_center_backward_input else x
    f, g = linear.apply(x, w), linear.apply(x_backward, b)
    f = f + bias if rule.use_bias_forward and bias is not None else f
    g = g + bias if rule.use_bias_backward and bias is not None else g
    f = phi(f) if rule.activation_forward else f
    g = phi(g) if rule.activation_backward else g
    forward = (
        rule.center_forward_output,
        rule.normalize_forward_output,
        rule.batch_center_forward_output,
    )
    backward = (rule.center_backward_output, rule.normalize_backward_output, False)
    rebuilt_f = _standardize(linear.transpose(x.shape, b, f), *forward)
    rebuilt_g = _standardize(linear.transpose(x.shape, w, g), *backward)
    f, g = _standardize(f, *forward), _standardize(g, *backward)

    positions = linear.positions(x, f, w) if rule.average_positions else 1.0
    decay = (w**2).sum() + (b**2).sum()
    sparse = (_mean_sum(f**2) + _mean_sum(g**2)) / positions
    amp = -_mean_sum(f * g) / positions
    if rule.name == "activation":
        return rule.sparse_coef * sparse + rule.amp_coef * amp
    if rule.name == "mirror":
        return rule.amp_coef * amp + rule.decay_coef * decay
    assert rule.name == "information", rule.name
    rebuilt = rebuilt_g if rule.reconstruction_reversal else rebuilt_f
    amp = -_mean_sum(x * rebuilt) / positions if rule.reconstruction_amp else amp
    null = _mean_sum(rebuilt**2) / positions
    size = sparse if rule.use_sparse else decay
    return rule.amp_coef * amp + rule.null_coef * null + rule.decay_coef * size


def slope(function, at, direction, step=1e-6):
    """Central difference of a function along a direction."""
    return (function(at + step * direction) - function(at - step * direction)) / (2.0 * step)


def noise(rule, shape, bits):
    """The noise input, from random 32-bit words: one for uniform, two by Box and Muller."""
    unit = (bits >> 9).astype("float64") / 2.0**23
    if rule.input_distribution == "uniform":
        return rule.input_stddev * np.sqrt(3.0) * (2.0 * unit - 1.0)
    radius = np.sqrt(-2.0 * np.log(1.0 - unit[0]))
    normal = np.concatenate([radius * f(2.0 * np.pi * unit[1]) for f in (np.cos, np.sin)])
    return rule.input_stddev * normal[: np.prod(shape)].reshape(shape)
