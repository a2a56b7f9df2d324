"""Images that a camera stored lying are prepared upright."""

import io

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from neural_alignment.data import encode, prepare
from tests.data import jpegs

# Four quarters of four colours in 24 x 16 pixels: every turn of it is another image.
PIXELS = np.zeros((16, 24, 3), np.uint8)
PIXELS[:8, :12, 0], PIXELS[:8, 12:, 1], PIXELS[8:, :12, 2], PIXELS[8:, 12:] = 250, 250, 250, 250


def stored(turn, form="JPEG", mode="RGB"):
    """The image in a file, and what Pillow makes of it."""
    image = PIL.Image.fromarray(PIXELS).convert(mode)
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    file = io.BytesIO()
    image.save(file, form, exif=exif, **({"quality": 100} if form == "JPEG" else {}))
    upright = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(file.getvalue())))
    return file.getvalue(), np.asarray(upright.convert("RGB"))


GREY = PIXELS.max(axis=2)
SHADE = np.stack([GREY] * 3, axis=2)


def with_palette():
    image = PIL.Image.fromarray((GREY > 0).astype(np.uint8), "P")
    image.putpalette([9, 99, 199, 250, 150, 50] + [0] * 762)
    return image


# What Pillow writes, as what, and the pixels as they are stored.
COLOURS = np.where(GREY[..., None] > 0, [250, 150, 50], [9, 99, 199])
STORED = {
    "transparency": (
        lambda: PIL.Image.fromarray(np.dstack([PIXELS, GREY // 2])), "PNG", {}, PIXELS),
    "grey and transparency": (
        lambda: PIL.Image.fromarray(np.dstack([GREY, GREY // 2])), "PNG", {}, SHADE),
    "16 bits": (lambda: PIL.Image.fromarray(GREY.astype(np.uint16) * 257), "PNG", {}, SHADE),
    "black and white": (lambda: PIL.Image.fromarray(GREY > 0), "PNG", {}, (SHADE > 0) * 255),
    "a palette": (with_palette, "PNG", {}, COLOURS),
    "a palette with a transparent colour": (with_palette, "PNG", {"transparency": 0}, COLOURS),
    "a GIF": (with_palette, "GIF", {}, COLOURS),
    "a GIF with a transparent colour": (
        with_palette, "GIF", {"transparency": 0},
        np.where(GREY[..., None] > 0, COLOURS, 0)),
}  # fmt: skip


@pytest.mark.parametrize("case", STORED)
def test_images_of_other_kinds_become_rgb(case):
    make, form, options, wanted = STORED[case]
    file = io.BytesIO()
    make().save(file, form, **options)
    np.testing.assert_array_equal(encode.decode(file.getvalue()), wanted)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("quality", [75, 95, 100])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpegs_are_decoded_as_others_do(mode, quality, subsampling):
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    file = io.BytesIO()
    options = {"quality": quality, "subsampling": subsampling}
    PIL.Image.fromarray(noise).convert(mode).save(file, "JPEG", **options)
    wanted = np.asarray(PIL.Image.open(file).convert("RGB"), int)
    np.testing.assert_allclose(encode.decode(file.getvalue()), wanted, atol=1)


def test_what_becomes_a_jpeg_keeps_every_pixels_colour():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[::2, ::2, 0] = pixels[1::2, ::2, 2] = 250
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    jpeg = encode.to_jpeg(file.getvalue())[0]
    np.testing.assert_allclose(encode.decode(jpeg).astype(int), pixels, atol=4)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation(turn, form, mode):
    contents, wanted = stored(turn, form, mode)
    assert encode.orientation(contents) == turn
    inside = np.s_[2:6, 2:6]  # away from the edges, which a JPEG blurs
    np.testing.assert_allclose(encode.decode(contents)[inside], wanted[inside], atol=12)
    jpeg, height, width = encode.to_jpeg(contents)
    assert (height, width) == wanted.shape[:2] == ((24, 16) if turn > 4 else (16, 24))
    assert encode.orientation(jpeg) == 1
    decoded = tf.io.decode_jpeg(jpeg, channels=3).numpy().astype(int)
    np.testing.assert_allclose(decoded[inside], wanted[inside], atol=12)
    np.testing.assert_allclose(decoded[-6:-2, -6:-2], wanted[-6:-2, -6:-2], atol=12)


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_of_a_webp_under_another_s_ending(turn):
    if not PIL.features.check("webp"):
        pytest.skip("Pillow was built without WebP")
    assert encode.orientation(stored(turn, "WEBP", "RGB")[0]) == turn


def test_an_upright_jpeg_is_kept_to_the_byte():
    contents, _ = stored(1)
    assert encode.to_jpeg(contents)[0] == contents
    plain = tf.io.encode_jpeg(PIXELS).numpy()  # without EXIF
    assert encode.to_jpeg(plain)[0] == plain


@pytest.mark.parametrize("turn", [0, 9, 65535])
def test_orientations_that_there_are_not(turn):
    assert encode.orientation(stored(1)[0]) == 1
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    PIL.Image.fromarray(PIXELS).save(file, "JPEG", exif=exif)
    contents = file.getvalue()
    assert encode.orientation(contents) == 1
    assert encode.to_jpeg(contents)[0] == contents


@pytest.mark.parametrize("seed", range(40))
def test_damaged_metadata_leave_the_image_as_it_is_stored(seed):
    contents = bytearray(stored(6)[0])
    start = contents.index(b"Exif")
    end = start + int.from_bytes(contents[start - 2 : start], "big") - 2
    for place in np.random.default_rng(seed).integers(start, end, 6):
        contents[place] = (contents[place] + 77) % 256
    turn = encode.orientation(bytes(contents))
    assert turn in range(1, 9)
    assert encode.to_jpeg(bytes(contents))[1:] == ((24, 16) if turn > 4 else (16, 24))


@pytest.mark.parametrize(
    "contents", [b"", b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF89a", b"x" * 99]
)
def test_what_is_no_image_has_no_orientation(contents):
    assert encode.orientation(contents) == 1


def test_prepared_records_are_upright(tmp_path):
    for turn in range(1, 9):
        folder = tmp_path / f"train/class{turn}"
        folder.mkdir(parents=True)
        (folder / f"{turn}.jpg").write_bytes(stored(turn)[0])
    found, classes = prepare.images(str(tmp_path / "train"))
    splits = {"train": found, "validation": found}
    prepare.write(splits, classes, str(tmp_path / "out"), {"train": 1, "validation": 1})
    for record in jpegs.read(tmp_path / "out/train-00000-of-00001"):
        feature = tf.train.Example.FromString(record).features.feature
        turn = feature["image/class/label"].int64_list.value[0]
        jpeg = feature["image/encoded"].bytes_list.value[0]
        sides = [feature[f"image/{side}"].int64_list.value[0] for side in ("height", "width")]
        pixels = tf.io.decode_jpeg(jpeg).numpy().astype(int)
        assert list(pixels.shape[:2]) == sides
        wanted = stored(turn)[1].astype(int)
        np.testing.assert_allclose(pixels[2:6, 2:6], wanted[2:6, 2:6], atol=12)
