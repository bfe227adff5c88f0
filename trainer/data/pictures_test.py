import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trainer.data.pictures import COLOURS, LONGEST, colour, mask_layer, picture, size_and_kind


def encode(array, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def embedded(uri):
    kind, _, content = uri.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == f"data:image/{image.format.lower()}"
    return image


def layer(*masks, order=()):
    """A layer as RGBA, uint8 [height, width, 4], and the number of regions."""
    uri, count = mask_layer(masks, order)
    return np.asarray(embedded(uri).convert("RGBA")), count


def rgb(number):
    return list(bytes.fromhex(colour(number)[1:]))


NOISE = np.random.default_rng(3).integers(0, 256, (480, 640, 3), np.uint8)
SMALL = NOISE[:28, :20]


def test_colours_are_different_and_begin_again():
    assert len({colour(number) for number in range(COLOURS)}) == COLOURS
    assert colour(COLOURS + 2) == colour(2)


def test_a_large_picture_is_embedded_small():
    shown = picture(encode(NOISE, "JPEG"))
    image = embedded(shown.uri)
    assert (image.format, image.size) == ("JPEG", (LONGEST, 240))
    assert (shown.size, shown.kind, shown.note) == ((640, 480), "JPEG", "")
    assert (shown.width, shown.height, shown.pixelated) == (278, 208, False)


def test_pictures_of_any_shape_have_a_size():
    for height, width in ((1, 3000), (3000, 1), (200, 30), (65, 65)):
        shown = picture(encode(np.zeros((height, width), np.uint8)))
        assert max(embedded(shown.uri).size) == min(max(height, width), LONGEST)
        assert 1 <= shown.width <= 416
        assert 1 <= shown.height <= 208


def test_a_tiny_picture_is_shown_pixel_by_pixel():
    shown = picture(encode(SMALL))
    np.testing.assert_array_equal(np.asarray(embedded(shown.uri)), SMALL)
    assert (shown.width, shown.height, shown.pixelated) == (80, 112, True)


def test_the_picture_is_not_turned_as_training_does_not_turn_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert picture(encode(NOISE, "JPEG", exif=exif)).size == (640, 480)


def test_what_is_transparent_is_white():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (10, 20, 30, 255)
    pixels = np.asarray(embedded(picture(encode(rgba)).uri))
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[3, 3].tolist() == [255, 255, 255]


def test_sixteen_bits_are_shown_as_eight():
    grey = np.array([[0, 0x1234], [0xFFFF, 0x8000]], np.uint16)
    pixels = np.asarray(embedded(picture(encode(grey)).uri))
    assert pixels.tolist() == [[0, 0x12], [0xFF, 0x80]]


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        (np.array([[0, 0.5], [1, 0.2]], np.float32), [[0, 128], [255, 51]], ""),
        (np.array([[0, 128], [255, 51]], np.float32), [[0, 128], [255, 51]], ""),
        (np.array([[-1, 0], [1, 0.2]], np.float32), [[0, 128], [255, 153]], "−1 is black, 1 is"),
        (np.array([[-2, 0], [2, 6]], np.float32), [[0, 64], [128, 255]], "-2 is black, 6 is"),
        (np.array([[np.nan, 0], [1, np.inf]], np.float32), [[0, 0], [255, 0]], "not finite"),
        (np.array([[7, 8], [9, 200]], np.uint8), [[7, 8], [9, 200]], ""),
        (np.full((2, 2), np.nan, np.float32), [[0, 0], [0, 0]], "not finite"),
    ],
)
def test_arrays_are_shown_by_their_range(values, expected, note):
    for array in (values, values[:, :, None]):
        shown = picture(array)
        assert np.asarray(embedded(shown.uri)).tolist() == expected
        assert note in shown.note
        assert bool(note) == bool(shown.note)
        assert shown.kind == str(values.dtype)
    coloured = picture(np.repeat(values[:, :, None], 3, axis=2))
    assert np.asarray(embedded(coloured.uri))[..., 1].tolist() == expected


def bomb():
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    sizes = struct.pack(">2I5B", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", sizes) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a note, no picture",
        encode(NOISE, "JPEG")[:5000],
        bomb(),
        np.zeros(784, np.float32),
        np.zeros((2, 2, 5), np.uint8),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
    ],
    ids=["empty", "text", "cut", "bomb", "flat", "five", "two", "nothing"],
)
def test_what_is_no_picture_is_a_value_error(value):
    with pytest.raises(ValueError, match=r"picture|pixels"):
        picture(value)


def test_the_size_is_told_without_decoding():
    assert size_and_kind(encode(NOISE, "JPEG")[:5000]) == ((640, 480), "JPEG")
    assert size_and_kind(np.zeros((2, 3, 1), np.float32)) == ((3, 2), "float32")


def test_a_mask_covers_what_it_shows_and_nothing_else():
    mask = np.zeros((9, 12), np.uint8)
    mask[2:7, 3:9] = 255
    pixels, count = layer(encode(mask))
    assert count == 1
    assert (pixels[..., 3] > 0).tolist() == (mask > 0).tolist()
    assert pixels[4, 5, :3].tolist() == rgb(0)
    # The inside lets the picture through; the outline does not.
    assert pixels[4, 5, 3] == 112
    assert pixels[2, 5, 3] == 255


@pytest.mark.parametrize("mode", ["bytes", "array", "bool", "float"])
def test_a_mask_may_be_a_file_or_an_array(mode):
    mask = np.zeros((4, 4), np.uint8)
    mask[1:] = 1
    value = {
        "bytes": encode(mask),
        "array": mask[:, :, None],
        "bool": mask.astype(bool),
        "float": mask.astype(np.float32),
    }[mode]
    pixels, count = layer(value)
    assert (pixels[..., 3] > 0).tolist() == (mask > 0).tolist()
    assert count == 1


def test_soft_edges_are_no_regions_of_their_own():
    mask = np.zeros((4, 256), np.uint8)
    mask[:, 100:] = 255
    mask[:, 98:102] = [60, 120, 180, 240]
    pixels, count = layer(encode(mask))
    assert count == 1
    assert (pixels[0, :, 3] > 0).argmax() == 100


def test_numbered_regions_have_colours_of_their_own():
    mask = np.zeros((6, 9), np.uint8)
    mask[:, 3:6] = 7
    mask[:, 6:] = 2
    pixels, count = layer(encode(mask))
    assert count == 2
    assert pixels[3, 0, 3] == 0
    assert pixels[3, 7, :3].tolist() == rgb(0)  # number 2 is the first
    assert pixels[3, 4, :3].tolist() == rgb(1)


def test_numbers_in_colour_are_those_of_segments_in_the_order_of_their_boxes():
    red, green = 3, 256 * 2
    segments = np.zeros((6, 9, 3), np.uint8)
    segments[:, :3] = (3, 0, 0)
    segments[:, 3:6] = (0, 2, 0)
    pixels, count = layer(encode(segments))
    assert count == 2
    assert pixels[3, 1, :3].tolist() == rgb(0)
    assert pixels[3, 4, :3].tolist() == rgb(1)
    assert pixels[3, 7, 3] == 0
    pixels, _ = layer(encode(segments), order=[green, 99, red])
    assert pixels[3, 4, :3].tolist() == rgb(0)
    assert pixels[3, 1, :3].tolist() == rgb(2)


def test_of_instances_the_smaller_lies_above():
    large, small = np.zeros((2, 8, 8), np.uint8)
    large[:6] = 255
    small[2:5, 2:5] = 255
    for masks, number in (((large, small), 1), ((small, large), 0)):
        pixels, count = layer(*(encode(mask) for mask in masks))
        assert count == 2
        assert pixels[3, 3, :3].tolist() == rgb(number)
        assert pixels[0, 0, :3].tolist() == rgb(1 - number)
        assert pixels[7, 7, 3] == 0


def test_a_layer_is_as_small_as_its_picture():
    mask = np.zeros((600, 900), np.uint8)
    mask[:300] = 255
    pixels, _ = layer(encode(mask))
    assert pixels.shape == (213, LONGEST, 4)
    assert (pixels[..., 3] > 0).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "masks",
    [
        [b"no picture"],
        [np.zeros(5, np.uint8)],
        [np.zeros((2, 2), np.uint8), np.zeros((3, 2), np.uint8)],
        [encode(NOISE)[:-2000]],
    ],
)
def test_what_is_no_mask_is_a_value_error(masks):
    with pytest.raises(ValueError, match=r"picture|mask|size"):
        mask_layer(masks)
