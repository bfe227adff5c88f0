import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from trainer.data.images import check_image, encode_png
from trainer.errors import BadItem

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(mode="RGB"):
    return Image.fromarray(NOISE).convert(mode)


def wide_png():
    """An RGB PNG of 16 bits per channel, which Pillow can read but not write."""

    def chunk(kind, content):
        return b"".join(
            (
                struct.pack(">I", len(content)),
                kind,
                content,
                struct.pack(">I", zlib.crc32(kind + content)),
            )
        )

    samples = (NOISE.astype(int) * 256 + 255).astype(">u2")  # the upper byte is that of NOISE
    rows = b"".join(b"\x00" + row.tobytes() for row in samples)
    header = struct.pack(">2I5B", 32, 24, 16, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def declared(width, height):
    """A PNG that says to be of this size; only its header matters."""
    data = bytearray(encode(picture("L"), "PNG"))
    data[16:24] = struct.pack(">2I", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - NOISE)], "duration": 40}
JPEG = encode(picture(), "JPEG")
PNG = encode(picture(), "PNG")
GREY_16 = encode(Image.fromarray(NOISE[:, :, 0].astype(np.uint16) * 256), "PNG")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (JPEG, "a.jpg"),
        (JPEG, "dir.png/a.JPEG"),
        (encode(picture("L"), "JPEG"), "a.jpeg"),
        (encode(picture(), "JPEG", progressive=True), "a.jpe"),
        (encode(picture(), "MPO", **FRAMES), "camera.JPG"),
        (PNG, "a.png"),
        (PNG, "PNG"),
        (PNG, "train-images-idx3-ubyte#12"),
        *[(encode(picture(mode), "PNG"), f"{mode}.png") for mode in ("1", "L", "LA", "P", "RGBA")],
    ],
)
@pytest.mark.parametrize("unusual", ["quarantine", "convert"])
def test_plain_images_go_through_byte_by_byte(data, name, unusual):
    assert check_image(data, name, unusual) == data


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "a.jpg", r"the file is empty \(0 bytes\)"),
        (b"Hello, world", "a.png", "not an image; the file begins with b'Hello, world'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a.eps", "not an image"),
        (JPEG[:20], "a.jpg", "the JPEG file is damaged at its beginning"),
        (PNG[:20], "a.png", "damaged"),
        (JPEG[: len(JPEG) // 2], "a.jpg", "truncated"),
        (JPEG[:-2], "a.jpg", "truncated"),
        (PNG[: len(PNG) // 2], "a.png", "truncated or damaged"),
        (PNG[:-12], "a.png", "truncated or damaged"),  # all pixels are there, the end is not
        (PNG[:60] + b"?" + PNG[61:], "a.png", "truncated or damaged"),
        (declared(20_000, 20_000), "bomb.png", "too large"),
    ],
)
@pytest.mark.parametrize("unusual", ["quarantine", "convert"])
def test_broken_images_are_refused_with_the_reason(data, name, reason, unusual):
    with pytest.raises(BadItem, match=reason):
        check_image(data, name, unusual)


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_the_limit_on_pixels_does_not_depend_on_warnings(action):
    with warnings.catch_warnings(action=action), pytest.raises(BadItem) as error:
        check_image(declared(10_000, 9_000), "a.png")
    assert error.value.expected == "at most 89,478,485 pixels"


UNUSUAL = [
    (encode(picture("CMYK"), "JPEG"), "a.jpg", "CMYK colours"),
    (GREY_16, "a.png", "16 bits per channel"),
    (wide_png(), "a.png", "16 bits per channel"),
    (encode(picture("P"), "GIF", **FRAMES), "a.gif", r"an animated GIF \(2 frames\)"),
    (encode(picture(), "PNG", **FRAMES), "a.png", r"an animated PNG \(2 frames\)"),
    (encode(picture(), "WEBP", **FRAMES), "a.webp", r"an animated WEBP \(2 frames\)"),
    (encode(picture("P"), "GIF"), "a.gif", "the format is GIF"),
    (encode(picture(), "BMP"), "a.bmp", "the format is BMP"),
    (encode(picture(), "TIFF"), "a.tif", "the format is TIFF"),
    (encode(picture(), "WEBP"), "a.webp", "the format is WEBP"),
]


@pytest.mark.parametrize(("data", "name", "reason"), UNUSUAL)
def test_unusual_images_are_refused_or_converted(data, name, reason):
    with pytest.raises(BadItem, match=reason):
        check_image(data, name)
    image = Image.open(io.BytesIO(check_image(data, name, "convert")))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 24))


def test_a_wrong_extension_is_refused_or_kept_as_it_is():
    with pytest.raises(BadItem, match=r"the name ends in \.jpg but the content is PNG"):
        check_image(PNG, "a.jpg")
    assert check_image(PNG, "a.jpg", "convert") == PNG


def test_conversion_keeps_the_upper_byte_of_16_bits():
    colours = np.asarray(Image.open(io.BytesIO(check_image(wide_png(), "a.png", "convert"))))
    np.testing.assert_array_equal(colours, NOISE)
    grey = np.asarray(Image.open(io.BytesIO(check_image(GREY_16, "a.png", "convert"))))
    np.testing.assert_array_equal(grey, np.repeat(NOISE[:, :, :1], 3, axis=2))


def test_conversion_takes_the_first_frame_and_leaves_pixels_alone():
    for kind in ("BMP", "PNG"):
        options = FRAMES if kind == "PNG" else {}
        converted = check_image(encode(picture(), kind, **options), "a", "convert")
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(converted))), NOISE)


def test_pixels_of_unknown_range_are_refused_even_then():
    data = encode(Image.fromarray(NOISE[:, :, 0].astype(np.float32)), "TIFF")
    with pytest.raises(BadItem, match="32 bits per channel"):
        check_image(data, "a.tif", "convert")


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels):
    data = encode_png(NOISE[:, :, :channels])
    image = Image.open(io.BytesIO(data))
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    np.testing.assert_array_equal(
        np.asarray(image).reshape(24, 32, channels), NOISE[:, :, :channels]
    )
    assert check_image(data, "a.png") == data


@pytest.mark.parametrize("array", [NOISE[:, :, 0], NOISE[:, :, :2], NOISE.astype(np.float32)])
def test_png_of_another_type_or_shape_is_refused(array):
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        encode_png(array)
