"""From encoded images to a network's input: "resnet" and "inception" preprocessing, and CIFAR's.

Every random choice is a stateless function of a seed, one pair of integers an example, so that an
example comes out the same however many threads, workers or restarts there are.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np

from neural_alignment.lazy import tf

MEAN_RGB = (0.485, 0.456, 0.406)  # of ImageNet's pixels in [0, 1]
STDDEV_RGB = (0.229, 0.224, 0.225)
COLORS = ("none", "fast", "full")
# Pixels of a JPEG, or of its crop, that is decoded to a quarter of its sides: 0.2 GB of bytes.
# Its short side is then 256 pixels at least, as no side of a JPEG has more than 65,535.
_LARGE = 1 << 26
_LONGEST = 8  # short sides: what lies further out is in no central crop


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing(abc.ABC):
    """Two halves: `crop` decodes, and fails where the image is corrupt; `finish` cannot fail.

    Args:
        image_size: pixels a side of the result.
        area: smallest and largest part of the image that a training crop covers; a tenth is the
            least whatever they say.

    Raises:
        ValueError: image_size < 1.
    """

    image_size: int
    area: tuple[float, float]

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"Expected image_size >= 1. Received: {self.image_size}.")

    @abc.abstractmethod
    def crop(self, contents: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        """Decodes an image, or the part of it that is needed.

        Args:
            contents: string scalar, a JPEG (a PNG is understood too).
            seed: int64 [2] in training; None in evaluation.

        Returns:
            uint8 [height, width, 3].
        """

    @abc.abstractmethod
    def finish(self, image: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        """Resizes, augments and scales what `crop` returned.

        Args:
            image: uint8 [height, width, 3].
            seed: as in `crop`.

        Returns:
            float32 [image_size, image_size, 3].
        """

    def _flip_and_resize(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        flip = tf.random.stateless_uniform([], _stream(seed, 2), 0, 2, tf.int32) == 1
        # As bytes, a quarter of the floats, and by an operation made for images.
        image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
        return tf.image.resize(image, [self.image_size] * 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetPreprocessing(Preprocessing):
    """(x/255 − mean) / std, of a distorted crop or of the central crop.

    Training: a crop of aspect 3/4 to 4/3 that covers 8 to 100 % of the image (and at least a tenth
    of it, the object being the whole image); where 100 attempts find none, a random square as
    large as fits; resized bilinearly without antialiasing, flipped every other time.
    Evaluation: the short side to 256 pixels (256/224 of another image_size), the central
    image_size pixels of that. [K]
    """

    area: tuple[float, float] = (0.08, 1.0)

    def crop(self, contents: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        """Decodes the random crop, or the whole image."""
        if seed is None:
            return _decode(contents)
        shape = _shape(contents)
        window = sample_crop(shape, _stream(seed, 0), self.area)
        failed = tf.reduce_all(window[2:] == shape[:2])  # the whole image is the op's way of saying
        square = _random_square(shape, _stream(seed, 1))
        return _decode_window(contents, tf.where(failed, square, window))

    def finish(self, image: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        """Resizes, in training flips too, and standardises by channel."""
        size = self.image_size
        if seed is None:
            image = _middle(image)
            height, width = tf.shape(image)[0], tf.shape(image)[1]
            scale = size * 256 / 224 / tf.cast(tf.minimum(height, width), tf.float64)
            sides = tf.cast(tf.stack([height, width]), tf.float64) * scale
            sides = tf.maximum(tf.cast(tf.round(sides), tf.int32), size)
            image = tf.image.resize(image, sides)
            top, left = tf.unstack((sides - size) // 2)
            image = image[top : top + size, left : left + size]
        else:
            image = self._flip_and_resize(image, seed)
        image = tf.ensure_shape(image, [size, size, 3])
        return standardize(image, MEAN_RGB, STDDEV_RGB, scale=255.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionPreprocessing(Preprocessing):
    """2x/255 − 1, of a crop with distorted colours or of the central 87.5 %; for ResNet v2.

    Training: a crop of aspect 3/4 to 4/3 that covers 5 to 100 % of the image and, as for "resnet",
    at least a tenth of it (the whole image where 100 attempts find none), resized bilinearly,
    flipped every other time, colours distorted.
    Evaluation: the central 87.5 % of each side, resized bilinearly.

    Args:
        color: "fast" changes brightness (by up to 32/255) and saturation (factor 0.5 to 1.5), in
            one order or the other; "full" hue (by up to 0.2) and contrast (0.5 to 1.5) as well,
            in one of four orders; "none" leaves the colours alone.

    Raises:
        ValueError: image_size < 1, or another color.
    """

    area: tuple[float, float] = (0.05, 1.0)
    color: str = "fast"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.color not in COLORS:
            raise ValueError(
                f"Expected a color distortion: {', '.join(COLORS)}. Received: {self.color!r}."
            )

    def crop(self, contents: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        """Decodes the random crop, or the central part."""
        shape = _shape(contents)
        if seed is not None:
            return _decode_window(contents, sample_crop(shape, _stream(seed, 0), self.area))
        sides = tf.cast(shape[:2], tf.float64)
        corner = tf.cast((sides - sides * 0.875) / 2, tf.int32)
        return _decode_window(contents, tf.concat([corner, shape[:2] - 2 * corner], 0))

    def finish(self, image: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        """Resizes, in training flips and distorts the colours, and scales to [-1, 1]."""
        size = self.image_size
        if seed is None:
            image = tf.image.resize(image, [size, size]) / 255.0
        else:
            image = self._flip_and_resize(image, seed) / 255.0
            image = tf.clip_by_value(distort_color(image, seed, self.color), 0.0, 1.0)
        return tf.ensure_shape(2.0 * image - 1.0, [size, size, 3])


_CLASSES = {"resnet": ResNetPreprocessing, "inception": InceptionPreprocessing}


def names() -> tuple[str, ...]:
    """The names that `get` knows, sorted."""
    return tuple(sorted(_CLASSES))


def get(name: str, image_size: int) -> Preprocessing:
    """Makes a preprocessing by name, with its published settings.

    Args:
        name: one of `names()`.
        image_size: pixels a side of the result.

    Returns:
        The preprocessing.

    Raises:
        ValueError: unknown name, or image_size < 1.
    """
    if name not in _CLASSES:
        raise ValueError(f"Expected a preprocessing: {', '.join(names())}. Received: {name!r}.")
    return _CLASSES[name](image_size=image_size)


def sample_crop(shape: tf.Tensor, seed: tf.Tensor, area: tuple[float, float]) -> tf.Tensor:
    """A random window of an image; the whole image where 100 attempts find none.

    Args:
        shape: int32 [3], height, width, channels.
        seed: integers [2].
        area: smallest and largest part of the image to cover; a tenth is the least.

    Returns:
        int32 [4]: top, left, height, width.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=area,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], 0)


def distort_color(image: tf.Tensor, seed: tf.Tensor, color: str) -> tf.Tensor:
    """Changes brightness, saturation, hue and contrast at random, in a random order.

    Args:
        image: float32 [height, width, 3] in [0, 1].
        seed: integers [2].
        color: see `InceptionPreprocessing`.

    Returns:
        The image, not clipped.
    """
    changes = {
        "brightness": lambda x: tf.image.stateless_random_brightness(
            x, 32 / 255, seed=_stream(seed, 3)
        ),
        "saturation": lambda x: tf.image.stateless_random_saturation(
            x, 0.5, 1.5, seed=_stream(seed, 4)
        ),
        "hue": lambda x: tf.image.stateless_random_hue(x, 0.2, seed=_stream(seed, 5)),
        "contrast": lambda x: tf.image.stateless_random_contrast(
            x, 0.5, 1.5, seed=_stream(seed, 6)
        ),
    }
    orders = {
        "none": [()],
        "fast": [("brightness", "saturation"), ("saturation", "brightness")],
        "full": [
            ("brightness", "saturation", "hue", "contrast"),
            ("saturation", "brightness", "contrast", "hue"),
            ("contrast", "hue", "brightness", "saturation"),
            ("hue", "saturation", "contrast", "brightness"),
        ],
    }[color]

    def apply(order: Sequence[str]) -> tf.Tensor:
        result = image
        for change in order:
            result = changes[change](result)
        return result

    if len(orders) == 1:
        return apply(orders[0])
    choice = tf.random.stateless_uniform([], _stream(seed, 7), 0, len(orders), tf.int32)
    return tf.switch_case(choice, [lambda order=order: apply(order) for order in orders])


def standardize(
    images: tf.Tensor, mean: Sequence[float], stddev: Sequence[float], scale: float = 1.0
) -> tf.Tensor:
    """(x/scale − mean) / stddev, by channel.

    Args:
        images: float32 [..., width, channels]; the width is static.
        mean: one number a channel.
        stddev: one number a channel.
        scale: the images are divided by it first.

    Returns:
        The images, standardised.
    """
    # Whole rows of factors: broadcasting three numbers over the pixels takes three times as long.
    row = (images.shape[-2], len(mean))
    factor = np.broadcast_to(1 / (scale * np.asarray(stddev)), row).astype(np.float32)
    shift = np.broadcast_to(np.asarray(mean) / np.asarray(stddev), row).astype(np.float32)
    return images * factor - shift


def pad_crop_flip(images: tf.Tensor, seeds: tf.Tensor, padding: int = 4) -> tf.Tensor:
    """The usual CIFAR augmentation: pad with zeros, crop at random, flip every other time.

    Args:
        images: float32 [batch, height, width, channels].
        seeds: integers [batch, 2], one pair an example; nothing else decides.
        padding: pixels on every side.

    Returns:
        Images of the same shape.
    """
    height, width = images.shape[1:3]
    sides = [[padding, padding], [padding, padding], [0, 0]]

    def one(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, seed = pair
        places = 2 * padding + 1
        draws = tf.random.stateless_uniform([3], seed, 0, 2 * places, tf.int32)
        top, left, flip = draws[0] % places, draws[1] % places, draws[2] % 2
        image = tf.pad(image, sides)[top : top + height, left : left + width]
        image = tf.where(flip == 1, image[:, ::-1], image)
        return tf.ensure_shape(image, images.shape[1:])

    return tf.map_fn(one, (images, seeds), fn_output_signature=images.dtype)


def _stream(seed: tf.Tensor, number: int) -> tf.Tensor:
    # One independent stream of random numbers for each choice made for an example.
    return tf.stack([seed[0] + number, seed[1]])


def _shape(contents: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.extract_jpeg_shape(contents),
        lambda: tf.shape(_decode(contents)),
    )


def _decode(contents: tf.Tensor) -> tf.Tensor:
    # A few of ImageNet's ".JPEG" files are PNGs, or CMYK; this understands both.
    is_large_jpeg = tf.cond(
        tf.io.is_jpeg(contents),
        lambda: _is_large(tf.io.extract_jpeg_shape(contents)[:2]),
        lambda: False,
    )
    image = tf.cond(
        is_large_jpeg,
        lambda: tf.io.decode_jpeg(contents, channels=3, ratio=4),
        lambda: tf.io.decode_image(contents, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _is_large(sides: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(sides, tf.int64)) > _LARGE


def _decode_window(contents: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    def part() -> tf.Tensor:
        top, left, height, width = tf.unstack(window)
        return _decode(contents)[top : top + height, left : left + width]

    def jpeg() -> tf.Tensor:
        return tf.cond(
            _is_large(window[2:]),
            lambda: tf.io.decode_and_crop_jpeg(contents, window // 4, channels=3, ratio=4),
            lambda: tf.io.decode_and_crop_jpeg(contents, window, channels=3),
        )

    return tf.cond(tf.io.is_jpeg(contents), jpeg, part)


def _middle(image: tf.Tensor) -> tf.Tensor:
    # Of a very long image the middle. Resized whole, one of 8000 x 4 pixels would take gigabytes.
    sides = tf.shape(image)[:2]
    kept = tf.minimum(sides, _LONGEST * tf.reduce_min(sides))
    kept -= (sides - kept) % 2  # the same centre
    top, left = tf.unstack((sides - kept) // 2)
    return image[top : top + kept[0], left : left + kept[1]]


def _random_square(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    side = tf.minimum(shape[0], shape[1])
    room = shape[:2] - side  # 0 along the short side
    offset = tf.random.stateless_uniform([], seed, 0, tf.reduce_max(room) + 1, tf.int32)
    return tf.concat([tf.minimum(offset, room), [side, side]], 0)
