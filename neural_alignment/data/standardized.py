"""Images whose channels are standardised: a mean taken off, divided by a deviation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from neural_alignment.data.arrays import ArrayDataset
from neural_alignment.data.preprocessing import standardize
from neural_alignment.lazy import tf


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StandardizedDataset(ArrayDataset):
    """An `ArrayDataset` of images (x/scale − mean) / stddev.

    Args:
        mean: one number a channel.
        stddev: one number a channel.
    """

    mean: tuple[float, ...]
    stddev: tuple[float, ...]

    @classmethod
    def of(
        cls, plain: ArrayDataset, mean: Sequence[float], stddev: Sequence[float]
    ) -> StandardizedDataset:
        """A data set with its channels standardised.

        Args:
            plain: the data set.
            mean: one number a channel, of pixels x/scale.
            stddev: one number a channel.

        Returns:
            The same examples, standardised.
        """
        fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
        return cls(**fields, mean=tuple(mean), stddev=tuple(stddev))

    def _to_float(self, images: tf.Tensor) -> tf.Tensor:
        return standardize(super()._to_float(images), self.mean, self.stddev)


def standardized(
    plain: ArrayDataset, pixel_mean: float | None, pixel_stddev: float | None
) -> ArrayDataset:
    """A data set with one mean and one deviation for all channels, where they are given.

    Args:
        plain: the data set.
        pixel_mean: of pixels x/scale; None with no pixel_stddev.
        pixel_stddev: of pixels x/scale, above 0.

    Returns:
        The data set, standardised; as it is where neither is given.

    Raises:
        ValueError: one of the two alone, or a pixel_stddev that is not above 0.
    """
    if pixel_mean is None and pixel_stddev is None:
        return plain
    if pixel_mean is None or pixel_stddev is None or not pixel_stddev > 0:
        raise ValueError(
            "Expected pixel_mean and pixel_stddev > 0, both or neither. "
            f"Received: pixel_mean={pixel_mean}, pixel_stddev={pixel_stddev}"
        )
    channels = plain.image_shape[-1]
    return StandardizedDataset.of(plain, [pixel_mean] * channels, [pixel_stddev] * channels)
