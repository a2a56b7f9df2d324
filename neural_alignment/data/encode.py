"""Encoded images as records: each an upright JPEG that can be decoded, in a tf.train.Example."""

from __future__ import annotations

import io

import numpy as np

from neural_alignment.data.tfrecords import LAYOUTS
from neural_alignment.lazy import tf
from neural_alignment.messages import one_line

FORMATS = {"original": 0, "usual": 1}  # index in `LAYOUTS`
_QUALITY = 100  # of images that are no plain JPEGs and have to be encoded again
_ORIENTATION = 0x0112  # EXIF's tag
# How such files begin; TensorFlow reads the third under another's ending.
_JPEG, _PNG, _RIFF, _BMP = b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM"


def decode(contents: bytes) -> np.ndarray:
    """Decodes an image, upright.

    Args:
        contents: JPEG, PNG, BMP or GIF; of an animation the first picture, without transparency.

    Returns:
        uint8 [height, width, 3].

    Raises:
        tf.errors.InvalidArgumentError: it cannot be decoded.
        OSError: a BMP that cannot be.
    """
    if contents.startswith(_BMP):
        return _bitmap(contents)
    with tf.device("CPU:0"):
        if contents.startswith(_JPEG):
            # TensorFlow's own choice is fast, and off by a few levels from what others decode.
            pixels = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE").numpy()
        else:
            pixels = tf.io.decode_image(contents, channels=3, expand_animations=False).numpy()
    return upright(pixels, orientation(contents))


def _bitmap(contents: bytes) -> np.ndarray:
    # TensorFlow takes the numbers of a palette's colours for shades of grey.
    import PIL.BmpImagePlugin

    try:
        return np.asarray(PIL.BmpImagePlugin.BmpImageFile(io.BytesIO(contents)).convert("RGB"))
    except Exception as error:  # a damaged file may raise anything
        raise OSError(one_line(error)) from error


def to_jpeg(contents: bytes) -> tuple[bytes, int, int]:
    """Checks an encoded image by decoding it; what is no upright RGB or grey JPEG becomes one.

    Args:
        contents: JPEG, PNG, BMP or GIF.

    Returns:
        The JPEG, its height and width.

    Raises:
        tf.errors.InvalidArgumentError: it cannot be decoded.
        OSError: a BMP that cannot be.
    """
    pixels = decode(contents)
    plain = contents.startswith(_JPEG) and orientation(contents) == 1
    with tf.device("CPU:0"):
        if not plain or int(tf.io.extract_jpeg_shape(contents)[2]) == 4:
            # Every pixel keeps its colour, which JPEGs usually have for each four of them.
            options = {"quality": _QUALITY, "chroma_downsampling": False}
            contents = tf.io.encode_jpeg(pixels, "rgb", **options).numpy()
    return contents, pixels.shape[0], pixels.shape[1]


def orientation(contents: bytes) -> int:
    """How a camera held the image, as EXIF has it.

    Args:
        contents: an encoded image.

    Returns:
        1, upright, to 8; 1 where the image does not say.
    """
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin
    import PIL.WebPImagePlugin

    if contents.startswith(_JPEG):
        reader = PIL.JpegImagePlugin.JpegImageFile
    elif contents.startswith(_PNG):
        reader = PIL.PngImagePlugin.PngImageFile
    elif contents.startswith(_RIFF):
        reader = PIL.WebPImagePlugin.WebPImageFile
    else:
        return 1
    try:
        found = reader(io.BytesIO(contents)).getexif().get(_ORIENTATION, 1)
    except Exception:  # metadata may be damaged in any way, and the image be good
        return 1
    return found if found in range(1, 9) else 1


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Turns an image upright.

    Args:
        pixels: [height, width, channels], as stored.
        turn: EXIF's orientation, 1 to 8.

    Returns:
        The image; height and width are exchanged from 5 on.
    """
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = (turn in (3, 4, 7, 8), turn in (2, 3, 6, 7))
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


def example(jpeg: bytes, label: int, layout: str, **extra: bytes | int) -> bytes:
    """A serialised `tf.train.Example`.

    Args:
        jpeg: the encoded image.
        label: its class, from 0.
        layout: "usual" or "original".
        **extra: more features, "__" in their names standing for "/".

    Returns:
        The record.
    """
    names = LAYOUTS[FORMATS[layout]]
    values = {name.replace("__", "/"): value for name, value in extra.items()}
    values |= {names.image: jpeg, names.label: label + names.first_label}
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for name, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(
        deterministic=True  # else the features' order changes from one record to the next
    )
