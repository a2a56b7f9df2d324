"""Independent float64 NumPy: bilinear maps, primitives and R, written from the equations."""

import itertools

import numpy as np

_ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
}


class Map:
    """A matmul over the last axis, or a convolution by a loop over the window's offsets."""

    def __init__(self, layer):
        self.is_conv = hasattr(layer, "kernel_size")
        if self.is_conv:
            self.strides, self.dilation = layer.strides, layer.dilation_rate
            self.padding, self.groups = layer.padding, layer.groups
            self.first = layer.data_format == "channels_first"

    def _pads(self, shape, window):
        pads = []
        for size, k, s, d in zip(shape, window, self.strides, self.dilation, strict=True):
            span = d * (k - 1) + 1
            if self.padding == "valid":
                pads.append((0, 0))
            elif self.padding == "causal":
                pads.append((span - 1, 0))
            else:
                total = max((-(-size // s) - 1) * s + span - size, 0)
                pads.append((total // 2, total - total // 2))
        return pads

    def _offsets(self, padded, window):
        """For every window offset, the slices of the padded input that it meets."""
        for offset in itertools.product(*map(range, window)):
            yield (
                offset,
                tuple(
                    slice(o * d, o * d + size - d * (k - 1), s)
                    for o, d, s, k, size in zip(
                        offset, self.dilation, self.strides, window, padded, strict=True
                    )
                ),
            )

    def _by_group(self, kernel):
        """Slices of input channels and of filters that belong together."""
        inputs, filters = kernel.shape[-2], kernel.shape[-1] // self.groups
        for g in range(self.groups):
            yield slice(g * inputs, (g + 1) * inputs), slice(g * filters, (g + 1) * filters)

    def apply(self, x, kernel):
        if not self.is_conv:
            return np.einsum("...i,io->...o", x, kernel)
        x = np.moveaxis(x, 1, -1) if self.first else x
        window = kernel.shape[:-2]
        x = np.pad(x, [(0, 0), *self._pads(x.shape[1:-1], window), (0, 0)])
        y = 0.0
        for offset, where in self._offsets(x.shape[1:-1], window):
            parts = [
                x[(slice(None), *where)][..., i] @ kernel[offset][..., o]
                for i, o in self._by_group(kernel)
            ]
            y = y + np.concatenate(parts, axis=-1)
        return np.moveaxis(y, -1, 1) if self.first else y

    def transpose(self, x_shape, kernel, dy):
        """`dy K^T`."""
        if not self.is_conv:
            return np.einsum("...o,io->...i", dy, kernel)
        if self.first:
            dy = np.moveaxis(dy, 1, -1)
            x_shape = (x_shape[0], *x_shape[2:], x_shape[1])
        window = kernel.shape[:-2]
        pads = self._pads(x_shape[1:-1], window)
        sizes = [n + sum(p) for n, p in zip(x_shape[1:-1], pads, strict=True)]
        dx = np.zeros((x_shape[0], *sizes, x_shape[-1]))
        for offset, where in self._offsets(sizes, window):
            for i, o in self._by_group(kernel):
                dx[(slice(None), *where, i)] += dy[..., o] @ kernel[offset][..., o].T
        inner = tuple(slice(p[0], p[0] + n) for p, n in zip(pads, x_shape[1:-1], strict=True))
        dx = dx[(slice(None), *inner)]
        return np.moveaxis(dx, -1, 1) if self.first else dx


def _standardize(x, centered, normalized, batch_centered):
    axes = tuple(range(1, x.ndim))
    if centered or normalized:
        x = x - x.mean(axis=axes, keepdims=True)
    if normalized:
        x = x / np.sqrt(np.maximum((x**2).sum(axis=axes, keepdims=True), 1e-12))
    return x - x.mean(axis=0) if batch_centered else x


def _mean_sum(x):
    return x.mean(axis=0).sum()


def alignment_loss(rule, linear, x, w, b, *, bias=None, activation="linear", noise=None, r=None):
    """R of one layer.

    Args:
        rule: the options are read from it, nothing else.
        linear: `Map`.
        x: input.
        w: forward kernel.
        b: backward kernel.
        bias: broadcastable to the output.
        activation: a name.
        noise: the input's replacement, or None.
        r: product's trained factor.
    """
    if rule.name in ("feedback", "sign_symmetry"):
        return 0.0
    if rule.name == "kolen_pollack":
        return rule.decay_coef * ((w**2).sum() + (b**2).sum())
    if rule.name == "product":
        return rule.decay_coef * ((w**2).sum() + (r**2).sum())
    if rule.name == "symmetric":
        decay = (w**2).sum() + (b**2).sum()
        return rule.decay_coef * decay - rule.self_coef * (w * b).sum()

    phi = _ACTIVATIONS[rule.activation_fn_override or activation]
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

    decay = (w**2).sum() + (b**2).sum()
    sparse = _mean_sum(f**2) + _mean_sum(g**2)
    amp = -_mean_sum(f * g)
    if rule.name == "activation":
        return rule.sparse_coef * sparse + rule.amp_coef * amp
    if rule.name == "mirror":
        positions = f[0].size / w.shape[-1] if rule.average_positions else 1.0
        return rule.amp_coef * amp / positions + rule.decay_coef * decay
    assert rule.name == "information", rule.name
    rebuilt = rebuilt_g if rule.reconstruction_reversal else rebuilt_f
    amp = -_mean_sum(x * rebuilt) if rule.reconstruction_amp else amp
    size = sparse if rule.use_sparse else decay
    return rule.amp_coef * amp + rule.null_coef * _mean_sum(rebuilt**2) + rule.decay_coef * size


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
