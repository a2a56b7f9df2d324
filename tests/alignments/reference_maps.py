"""Independent float64 NumPy: the layers' bilinear maps, written from the equations.

Each has `apply(x, K)`, its transpose for the input, and what a rule asks of the kernel's axes.
"""

import itertools

import numpy as np


class _OutputsLast:
    """Kernels whose last axis counts the outputs."""

    def outputs_last(self, kernel):
        return kernel

    def from_outputs_last(self, turned, kernel_shape):
        return turned.reshape(kernel_shape)

    def positions(self, x, y, kernel):
        return y[0].size / kernel.shape[-1]


class Matmul(_OutputsLast):
    """Over the last axis."""

    def apply(self, x, kernel):
        return np.einsum("...i,io->...o", x, kernel)

    def transpose(self, x_shape, kernel, dy):
        """`dy K^T`."""
        return np.einsum("...o,io->...i", dy, kernel)


class Einsum:
    """Along an equation; "dy K^T" by the equation with input and output in each other's place."""

    def __init__(self, equation):
        self.inputs, self.kernel, self.outputs = equation.replace("->", ",").split(",")

    def apply(self, x, kernel):
        return np.einsum(f"{self.inputs},{self.kernel}->{self.outputs}", x, kernel)

    def transpose(self, x_shape, kernel, dy):
        return np.einsum(f"{self.outputs},{self.kernel}->{self.inputs}", dy, kernel)

    def _split(self):
        of_y = "".join(c for c in self.kernel if c in self.outputs)
        return "".join(c for c in self.kernel if c not in self.outputs), of_y

    def outputs_last(self, kernel):
        of_x, of_y = self._split()
        size = int(np.prod([kernel.shape[self.kernel.index(c)] for c in of_x]))
        return np.einsum(f"{self.kernel}->{of_x}{of_y}", kernel).reshape(size, -1)

    def from_outputs_last(self, turned, kernel_shape):
        turned_letters = "".join(self._split())
        shape = [kernel_shape[self.kernel.index(c)] for c in turned_letters]
        return np.einsum(f"{turned_letters}->{self.kernel}", turned.reshape(shape))

    def positions(self, x, y, kernel):
        """Axes of y that the kernel has not."""
        return y[0].size / self.outputs_last(kernel).shape[-1]


class Conv(_OutputsLast):
    """A convolution, in groups too, by a loop over the window's offsets."""

    def __init__(self, strides, dilation, padding, first, groups=1):
        self.strides, self.dilation, self.padding = strides, dilation, padding
        self.first, self.groups = first, groups

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


class DepthwiseConv:
    """Output channel c * multiplier + m is input channel c, convolved with `K[..., c, m]`.

    That is a convolution whose kernel is 0 between other channels.
    """

    def __init__(self, *conv):
        self._conv = Conv(*conv)

    def _full(self, kernel):
        *window, channels, multiplier = kernel.shape
        full = np.zeros((*window, channels, channels, multiplier))
        for c in range(channels):
            full[..., c, c, :] = kernel[..., c, :]
        return full.reshape(*window, channels, channels * multiplier)

    def apply(self, x, kernel):
        return self._conv.apply(x, self._full(kernel))

    def transpose(self, x_shape, kernel, dy):
        return self._conv.transpose(x_shape, self._full(kernel), dy)

    def outputs_last(self, kernel):
        """One input channel an output: the window, 1, and the output channels."""
        *window, channels, multiplier = kernel.shape
        return kernel.reshape(*window, 1, channels * multiplier)

    def from_outputs_last(self, turned, kernel_shape):
        return turned.reshape(kernel_shape)

    def positions(self, x, y, kernel):
        return y[0].size / (kernel.shape[-2] * kernel.shape[-1])


class ConvTranspose:
    """The transpose of the convolution from y to x with the same kernel `[*window, y's, x's]`."""

    def __init__(self, strides, dilation, padding, first, output_padding):
        self._conv = Conv(strides, dilation, padding, first)
        self._output_padding = output_padding

    def _size(self, axis, size, window):
        conv, extra = self._conv, self._output_padding
        stride, span = conv.strides[axis], conv.dilation[axis] * (window - 1) + 1
        if conv.padding == "same":
            reached = (size - 1) * stride + span % 2
            return size * stride if extra is None else reached + extra[axis]
        reached = (size - 1) * stride + span
        return reached + (max(stride - span, 0) if extra is None else extra[axis])

    def apply(self, x, kernel):
        window, filters = kernel.shape[:-2], kernel.shape[-2]
        spatial = x.shape[2:] if self._conv.first else x.shape[1:-1]
        sizes = [self._size(i, *pair) for i, pair in enumerate(zip(spatial, window, strict=True))]
        shape = (x.shape[0], filters, *sizes) if self._conv.first else (x.shape[0], *sizes, filters)
        return self._conv.transpose(shape, kernel, x)

    def transpose(self, x_shape, kernel, dy):
        return self._conv.apply(dy, kernel)

    def outputs_last(self, kernel):
        return np.swapaxes(kernel, -1, -2)

    def from_outputs_last(self, turned, kernel_shape):
        return np.swapaxes(turned, -1, -2)

    def positions(self, x, y, kernel):
        """Each position of x meets each weight once."""
        return x[0].size / kernel.shape[-1]


def map_of(layer, site=""):
    """The map of a layer's site, from the layer's Keras arguments."""
    kinds = [cls.__name__ for cls in type(layer).__mro__]
    if "EinsumDense" in kinds:
        return Einsum(layer.equation)
    if "Dense" in kinds:
        return Matmul()
    first, ones = layer.data_format == "channels_first", (1,) * layer.rank
    window = (layer.strides, layer.dilation_rate, layer.padding, first)
    if "BaseConvTranspose" in kinds:
        return ConvTranspose(*window, layer.output_padding)
    if "BaseDepthwiseConv" in kinds or site == "depthwise":
        return DepthwiseConv(*window)
    if site == "pointwise":
        return Conv(ones, ones, "valid", first)
    return Conv(*window, layer.groups)
