"""Preprocessing of single images, against NumPy where there is a formula."""

import base64
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from neural_alignment.data import preprocessing

HEIGHT, WIDTH = 60, 90
# A JPEG of 8 x 8 pixels in CMYK, all of C 0, M 255, Y 255, K 0 as Adobe stores it: red.
CMYK = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4L"
    "CxAWEBETFBUVFQwPFxgWFBgSFBUU/8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABQAAQAAAAAAAAAAAAAAAAAAAAn/"
    "xAAUEAEAAAAAAAAAAAAAAAAAAAAA/9oADgRDAE0AWQBLAAA/AFTFUKoqb//Z"
)


@pytest.fixture(scope="module")
def pixels():
    """Row and column can be read off a pixel: red grows downwards, green to the right."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([rows * 4, columns * 2, np.full_like(rows, 128)], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def jpeg(pixels):
    return tf.io.encode_jpeg(pixels, quality=100, chroma_downsampling=False).numpy()


def seed(number):
    return tf.constant([1234, number], tf.int64)


def train(step, contents, number):
    return step.finish(step.crop(contents, seed(number)), seed(number)).numpy()


def graph(step):
    """The training half as a graph: hundreds of images in little time."""
    return tf.function(lambda contents, key: step.crop(contents, key), autograph=False)


def test_resnet_evaluation_is_the_central_crop(pixels, jpeg):
    step = preprocessing.get("resnet", 28)  # the short side becomes 32: 32 x 48, crop 28 x 28
    found = step.finish(step.crop(jpeg, None), None).numpy()
    resized = tf.image.resize(pixels, [32, 48]).numpy()[2:30, 10:38]
    wanted = (resized / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert found.shape == (28, 28, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=0.1)  # JPEG changes pixels by a few 255ths


@pytest.mark.parametrize("size", [(224, 300), (500, 224), (33, 32), (40, 40), (7, 2000)])
def test_resnet_evaluation_of_any_shape(size):
    contents = tf.io.encode_jpeg(np.zeros((*size, 3), np.uint8))
    step = preprocessing.get("resnet", 32)
    assert step.finish(step.crop(contents, None), None).shape == (32, 32, 3)


def test_resnet_crops_have_the_published_shapes(jpeg):
    crop = graph(preprocessing.get("resnet", 32))
    shapes = np.array([crop(jpeg, seed(i)).shape[:2] for i in range(400)])
    aspect = shapes[:, 1] / shapes[:, 0]
    area = shapes.prod(1) / (HEIGHT * WIDTH)
    assert 0.7 < aspect.min() < 0.8 and 1.27 < aspect.max() < 1.4
    assert 0.09 < area.min() < 0.2 and area.max() > 0.8  # a tenth of the image must be covered


def test_resnet_falls_back_to_a_random_square(pixels):
    # No crop of aspect 3/4 to 4/3 covers a tenth of an image as long as this one.
    long = np.tile(pixels[:8], (1, 10, 1))
    contents = tf.io.encode_png(long).numpy()  # exact, so that the place can be told
    crop = graph(preprocessing.get("resnet", 32))
    found = [crop(contents, seed(i)).numpy() for i in range(60)]
    assert {image.shape for image in found} == {(8, 8, 3)}
    assert len({image.tobytes() for image in found}) > 20
    windows = {long[:, i : i + 8].tobytes() for i in range(long.shape[1] - 7)}
    assert all(image.tobytes() in windows for image in found)


def test_resnet_training_value_and_flip(pixels, jpeg):
    step = preprocessing.get("resnet", 32)
    flips = 0
    for number in range(40):
        image = train(step, jpeg, number)
        assert image.shape == (32, 32, 3)
        raw = (image * preprocessing.STDDEV_RGB + preprocessing.MEAN_RGB) * 255
        np.testing.assert_allclose(raw[..., 2], 128, atol=6)
        assert raw[-1, :, 0].mean() > raw[0, :, 0].mean()  # never upside down
        flips += raw[:, 0, 1].mean() > raw[:, -1, 1].mean()
    assert 10 <= flips <= 30


@pytest.mark.parametrize("name", ["resnet", "inception"])
def test_an_image_is_a_function_of_its_seed(jpeg, name):
    step = preprocessing.get(name, 32)
    np.testing.assert_array_equal(train(step, jpeg, 3), train(step, jpeg, 3))
    assert (train(step, jpeg, 3) != train(step, jpeg, 4)).any()


def test_inception_evaluation_is_the_central_part(pixels, jpeg):
    step = preprocessing.get("inception", 32)
    found = step.finish(step.crop(jpeg, None), None).numpy()
    top, left = int(HEIGHT / 16), int(WIDTH / 16)
    part = pixels[top : HEIGHT - top, left : WIDTH - left]
    wanted = 2 * tf.image.resize(part, [32, 32]).numpy() / 255 - 1
    np.testing.assert_allclose(found, wanted, atol=0.05)


def test_inception_crops_cover_less_and_never_fall_back(jpeg, pixels):
    crop = graph(preprocessing.get("inception", 32))
    areas = [np.prod(crop(jpeg, seed(i)).shape[:2]) / (HEIGHT * WIDTH) for i in range(200)]
    assert 0.09 < min(areas) < 0.2 and max(areas) > 0.8
    long = tf.io.encode_jpeg(np.tile(pixels[:8], (1, 10, 1))).numpy()
    assert {crop(long, seed(i)).shape[:2] for i in range(5)} == {(8, 900)}


@pytest.mark.parametrize(("color", "orders"), [("none", 1), ("fast", 2), ("full", 4)])
def test_inception_colors(jpeg, color, orders):
    step = preprocessing.InceptionPreprocessing(image_size=8, color=color)
    plain = preprocessing.InceptionPreprocessing(image_size=8, color="none")
    for number in range(6):
        image = train(step, jpeg, number)
        assert -1.0 <= image.min() and image.max() <= 1.0
        assert np.array_equal(image, train(plain, jpeg, number)) == (color == "none")


def test_the_order_of_the_colors_is_random():
    image = tf.constant(np.random.default_rng(0).uniform(0.0, 1.0, (8, 8, 3)), tf.float32)

    def brightness(x, key):
        return tf.image.stateless_random_brightness(x, 32 / 255, seed=key + [3, 0])

    def saturation(x, key):
        return tf.image.stateless_random_saturation(x, 0.5, 1.5, seed=key + [4, 0])

    orders = []
    for number in range(60):
        key = seed(number)
        wanted = [saturation(brightness(image, key), key), brightness(saturation(image, key), key)]
        found = preprocessing.distort_color(image, key, "fast")
        equal = [np.abs(found - each).max() < 1e-6 for each in wanted]
        assert any(equal)
        if not all(equal):  # where nothing is clipped the two commute
            orders.append(equal[0])
    assert 0.2 < np.mean(orders) < 0.8 and len(orders) > 15


def test_pngs_grey_and_cmyk_images_are_understood(pixels):
    png = tf.io.encode_png(pixels).numpy()
    grey = tf.io.encode_jpeg(pixels[..., :1]).numpy()
    for name in preprocessing.names():
        step = preprocessing.get(name, 16)
        for contents in (png, grey, CMYK):
            assert step.finish(step.crop(contents, None), None).shape == (16, 16, 3)
            assert train(step, contents, 0).shape == (16, 16, 3)
    red = preprocessing.get("inception", 8)
    np.testing.assert_allclose(
        red.finish(red.crop(CMYK, None), None).numpy().mean((0, 1)), [1, -1, -1], atol=0.05
    )


@pytest.mark.parametrize("contents", [b"", b"junk", b"\xff\xd8\xff\xe0"])
def test_a_corrupt_image_fails_in_the_first_half(contents):
    step = preprocessing.get("resnet", 16)
    for key in (None, seed(0)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            step.crop(contents, key)


def test_unknown_names():
    with pytest.raises(ValueError, match="inception, resnet. Received: 'vgg'"):
        preprocessing.get("vgg", 224)
    with pytest.raises(ValueError, match="none, fast, full. Received: 'slow'"):
        preprocessing.InceptionPreprocessing(image_size=8, color="slow")


SIDES = [(4, 8000), (8000, 4), (1, 65000), (65000, 1), (3, 20001), (16, 30000)]
MEMORY = """
import resource
import numpy as np
import tensorflow as tf
from neural_alignment.data import preprocessing

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def images(height, width):
    jpeg = tf.io.encode_jpeg(np.full((height, width, 3), 100, np.uint8)).numpy()
    for name in preprocessing.names():
        step = preprocessing.get(name, 224)
        for seed in (None, tf.constant([1, 2], tf.int64)):
            yield tf.function(lambda: step.finish(step.crop(tf.constant(jpeg), seed), seed))()

list(images(300, 400))
before = peak()
for sides in {sides}:
    for image in images(*sides):
        assert image.shape == (224, 224, 3), sides
print(peak() - before)
"""


@pytest.mark.parametrize("name", ["resnet", "inception"])
@pytest.mark.parametrize("number", [None, 0, 1, 2])
@pytest.mark.parametrize(("height", "width"), [(640, 480), (203, 1007), (1001, 333)])
def test_large_jpegs_are_decoded_to_a_quarter(name, number, height, width, monkeypatch):
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / width * 3 + y / height * k) for k in (2, 3, 5)]
    pixels = np.stack([128 + 100 * wave for wave in waves], axis=-1).astype(np.uint8)
    jpeg = tf.io.encode_jpeg(pixels, quality=98)
    step = preprocessing.get(name, 32)
    key = None if number is None else seed(number)
    whole = step.crop(jpeg, key)
    monkeypatch.setattr(preprocessing, "_LARGE", 1 << 12)
    less = step.crop(jpeg, key)
    assert int(tf.size(less)) < int(tf.size(whole)) / 14
    if key is None or name == "resnet":  # no colours are changed
        made, expected = step.finish(less, key), step.finish(whole, key)
        # A crop begins up to three pixels earlier, of hundreds.
        np.testing.assert_allclose(made, expected, atol=0.3)
        assert np.abs(made - expected).mean() < 0.12
    monkeypatch.setattr(preprocessing, "_LARGE", height * width)
    np.testing.assert_array_equal(step.crop(jpeg, key), whole)


@pytest.mark.slow
def test_very_long_images_take_bounded_memory():
    result = subprocess.run(
        [sys.executable, "-c", MEMORY.replace("{sides}", repr(SIDES))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 100  # MiB; resized whole, the first takes 1,500


@pytest.mark.parametrize(
    ("height", "width"), [(20, 400), (401, 20), (7, 300), (21, 167), (20, 161)]
)
def test_the_middle_of_a_long_image_is_what_the_central_crop_shows(height, width):
    step = preprocessing.get("resnet", 28)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    short = min(height, width)
    sides = [max(28, round(side * 32 / short)) for side in (height, width)]
    whole = tf.image.resize(image, sides).numpy()
    top, left = ((side - 28) // 2 for side in sides)
    wanted = preprocessing.standardize(
        whole[top : top + 28, left : left + 28],
        preprocessing.MEAN_RGB, preprocessing.STDDEV_RGB, scale=255.0,
    )  # fmt: skip
    got = step.finish(tf.constant(image), None).numpy()
    # Rounding moves a side of so many pixels by less than half of one of them.
    assert np.abs(got - wanted).mean() < 0.2
    assert np.corrcoef(got.ravel(), np.asarray(wanted).ravel())[0, 1] > 0.95
