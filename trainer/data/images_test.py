import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from trainer.data.images import _scan_fault, check_image, encode_png
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
    assert check_image(data, name, unusual).data == data


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
        (declared(20_000, 20_000), "bomb.png", "400,000,000 pixels"),
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
    (encode(picture("P"), "GIF", **FRAMES), "a.gif", "an animated GIF"),
    (encode(picture(), "PNG", **FRAMES), "a.png", "an animated PNG"),
    (encode(picture(), "WEBP", **FRAMES), "a.webp", "an animated WEBP"),
    (encode(picture("P"), "GIF"), "a.gif", "the format is GIF"),
    (encode(picture(), "BMP"), "a.bmp", "the format is BMP"),
    (encode(picture(), "TIFF"), "a.tif", "the format is TIFF"),
    (encode(picture(), "WEBP"), "a.webp", "the format is WEBP"),
]


@pytest.mark.parametrize(("data", "name", "reason"), UNUSUAL)
def test_unusual_images_are_refused_or_converted(data, name, reason):
    with pytest.raises(BadItem, match=reason):
        check_image(data, name)
    image = Image.open(io.BytesIO(check_image(data, name, "convert").data))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 24))


def test_a_wrong_extension_is_refused_or_kept_as_it_is():
    with pytest.raises(BadItem, match=r"the name ends in \.jpg but the content is PNG"):
        check_image(PNG, "a.jpg")
    assert check_image(PNG, "a.jpg", "convert").data == PNG


def test_conversion_keeps_the_upper_byte_of_16_bits():
    colours = np.asarray(Image.open(io.BytesIO(check_image(wide_png(), "a.png", "convert").data)))
    np.testing.assert_array_equal(colours, NOISE)
    grey = np.asarray(Image.open(io.BytesIO(check_image(GREY_16, "a.png", "convert").data)))
    np.testing.assert_array_equal(grey, np.repeat(NOISE[:, :, :1], 3, axis=2))


def test_conversion_takes_the_first_frame_and_leaves_pixels_alone():
    for kind in ("BMP", "PNG"):
        options = FRAMES if kind == "PNG" else {}
        converted = check_image(encode(picture(), kind, **options), "a", "convert").data
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
    assert check_image(data, "a.png").data == data


@pytest.mark.parametrize("array", [NOISE[:, :, 0], NOISE[:, :, :2], NOISE.astype(np.float32)])
def test_png_of_another_type_or_shape_is_refused(array):
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        encode_png(array)


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


TRANSPOSED = {  # what a viewer does to the stored pixels (TIFF 6.0, tag Orientation)
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
BLURRED = Image.fromarray(NOISE // 2 + 64).resize((8, 6)).resize((64, 48), Image.Resampling.BICUBIC)
SMOOTH = np.asarray(BLURRED)


@pytest.mark.parametrize("orientation", TRANSPOSED)
@pytest.mark.parametrize("check", ["header", "decode"])
def test_a_picture_is_turned_upright_once(orientation, check):
    for kind, tolerance in (("PNG", 0), ("JPEG", 3)):
        came = encode(Image.fromarray(SMOOTH), kind, exif=exif(orientation))
        pixels = np.asarray(Image.open(io.BytesIO(came)))
        checked = check_image(came, "a", check=check)
        stored = Image.open(io.BytesIO(checked.data))
        assert stored.format == kind
        assert stored.getexif().get(0x0112, 1) == 1
        assert (checked.width, checked.height) == stored.size
        assert checked.change == f"turned upright: EXIF orientation {orientation}"
        expected = TRANSPOSED[orientation](pixels).astype(int)
        assert np.abs(np.asarray(stored).astype(int) - expected).max() <= tolerance
        assert check_image(checked.data, "a").change == ""


def test_a_turned_jpeg_loses_next_to_nothing():
    options = {"quality": 60, "subsampling": "4:2:0"}
    came = encode(Image.fromarray(SMOOTH), "JPEG", exif=exif(6), **options)
    stored = Image.open(io.BytesIO(check_image(came, "a").data))
    theirs = Image.open(io.BytesIO(came))
    assert [c[1:3] for c in stored.layer] == [c[1:3] for c in theirs.layer]
    for table in theirs.quantization:
        turned = np.reshape(stored.quantization[table], (8, 8)).T.ravel()
        assert turned.tolist() == theirs.quantization[table]
    difference = np.asarray(stored).astype(int) - np.rot90(np.asarray(theirs), -1)
    again = Image.open(io.BytesIO(encode(Image.fromarray(np.asarray(theirs)), "JPEG", quality=75)))
    naive = np.asarray(again).astype(int) - np.asarray(theirs)
    assert np.abs(difference).mean() < 0.5 * np.abs(naive).mean()


@pytest.mark.parametrize("orientation", [0, 1, 9, 255])
def test_an_orientation_that_asks_for_nothing_changes_nothing(orientation):
    for kind in ("PNG", "JPEG"):
        came = encode(picture(), kind, exif=exif(orientation))
        assert check_image(came, "a").data == came


def test_damaged_exif_is_passed_over():
    came = encode(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0")
    assert check_image(came, "a.jpg").data == came


def test_a_converted_picture_is_turned_too():
    came = encode(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", exif=exif(8))
    checked = check_image(came, "a.jpg", "convert")
    assert (checked.width, checked.height) == (48, 64)
    assert checked.change == ("converted to PNG: CMYK colours; turned upright: EXIF orientation 8")


def test_the_header_check_finds_a_missing_end_and_no_more():
    thumbnail = encode(picture(), "JPEG", exif=exif(1) + JPEG)  # has an end of its own inside
    for data in (JPEG[:-2], JPEG[:-300], PNG[:-12], thumbnail[:-2]):
        with pytest.raises(BadItem, match="truncated"):
            check_image(data, "a", check="header")
    spoilt = bytearray(JPEG)
    spoilt[-100:-98] = b"\xff\xd9"
    assert check_image(bytes(spoilt), "a", check="header").data == bytes(spoilt)
    checked = check_image(JPEG, "a", check="header")
    assert (checked.data, checked.width, checked.height, checked.change) == (JPEG, 32, 24, "")
    for data, name, reason in UNUSUAL:
        with pytest.raises(BadItem, match=reason):
            check_image(data, name, check="header")


def test_bytes_behind_the_end_do_no_harm():
    for data in (JPEG + b"\0" * 40, PNG + b"\0" * 40, JPEG + JPEG):
        assert check_image(data, "a", check="header").data == data
        assert check_image(data, "a").data == data


def test_damage_in_the_middle_of_a_jpeg_is_found():
    data = bytearray(JPEG)
    data[-200:-198] = b"\xff\xd9"
    with pytest.raises(BadItem, match=r"truncated or damaged \(.*premature end"):
        check_image(bytes(data), "a.jpg")
    before_the_end = JPEG[:-2] + b"abc" + JPEG[-2:]  # every decoder skips what is no marker
    table = JPEG.index(b"\xff\xc4")
    before_a_table = JPEG[:table] + b"abc" + JPEG[table:]
    profile = JPEG[:2] + b"\xff\xe2\0\x12ICC_PROFILE\0\5\2" + JPEG[2:]
    for harmless in (before_the_end, before_a_table, profile):
        assert check_image(harmless, "a.jpg").data == harmless
        with pytest.raises(BadItem, match="truncated or damaged"):
            check_image(harmless[:-100], "a.jpg")


def test_the_quick_decoding_finds_all_that_a_full_one_finds():
    random = np.random.default_rng(2)
    options = ({}, {"progressive": True}, {"subsampling": "4:4:4"}, {"restart_marker_rows": 1})
    originals = [encode(Image.fromarray(SMOOTH), "JPEG", **o) for o in options]
    found = 0
    for number in range(2_000):
        data = bytearray(originals[number % len(originals)])
        place = int(random.integers(2, len(data)))
        if number % 3:
            data[place] ^= 1 << int(random.integers(8))
        else:
            del data[place : place + int(random.integers(1, 9))]
        try:
            simplejpeg.decode_jpeg(bytes(data), strict=True)
            fault = ""
        except ValueError as error:
            fault = str(error)
        harmless = fault.endswith("extraneous bytes before marker 0xd9")
        progressive = number % len(originals) == 1
        expected = bool(fault) and (progressive or not harmless)
        assert bool(_scan_fault(bytes(data), progressive)) == expected
        found += bool(fault)
    assert 300 < found < 1_900


def test_a_jpeg_that_only_pillow_reads_is_unusual():
    table = JPEG.index(b"\xff\xdb")
    data = JPEG[:table] + b"\xff\xd9" + JPEG[table:]  # an end within the headers
    with pytest.raises(BadItem, match="a kind that few decoders read"):
        check_image(data, "a.jpg")


def test_in_a_progressive_jpeg_bytes_before_the_end_may_be_a_lost_pass():
    whole = encode(picture(), "JPEG", progressive=True)
    assert check_image(whole, "a.jpg").data == whole
    last = whole.rindex(b"\xff\xda")
    with pytest.raises(BadItem, match="extraneous bytes before marker 0xd9"):
        check_image(whole[:last] + b"\0" + whole[last + 1 :], "a.jpg")


def test_a_jpeg_of_endless_scans_is_refused_at_once():
    data = encode(picture(), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    bomb = data[:start] + data[start:-2] * 200 + data[-2:]
    for check in ("header", "decode"):
        with pytest.raises(BadItem, match=r"a progressive JPEG of 2\d\d scans"):
            check_image(bomb, "a.jpg", check=check)


def test_a_damaged_picture_that_is_to_be_converted_is_refused():
    animated = encode(picture(), "PNG", **FRAMES)
    upside_down = encode(picture(), "PNG", exif=exif(3))
    for data in (animated[: len(animated) // 4], upside_down[: len(upside_down) // 2]):
        for check in ("header", "decode"):
            with pytest.raises(BadItem, match="truncated or damaged"):
                check_image(data, "a.png", "convert", check)


def test_a_tiff_of_a_hundred_thousand_pages_takes_no_longer():
    page = struct.pack("<H", 3)
    page += b"".join(struct.pack("<2HI2H", tag, 3, 1, 1, 0) for tag in (256, 257, 262))
    size = len(page) + 4
    pages = [page + struct.pack("<I", 8 + size * (n + 1)) for n in range(100_000)]
    data = b"II*\0" + struct.pack("<I", 8) + b"".join(pages)
    began = time.monotonic()
    for unusual in ("quarantine", "convert"):
        with pytest.raises(BadItem):
            check_image(data, "a.tif", unusual)
    assert time.monotonic() - began < 5


def test_a_picture_to_be_converted_may_have_fewer_pixels():
    data = encode(Image.new("L", (5000, 4500)), "GIF")
    with pytest.raises(BadItem, match="22,500,000 pixels; expected at most 22,369,621"):
        check_image(data, "a.gif", "convert")


def test_half_an_animation_is_one():
    control = struct.pack(
        ">5I2H2B", 0, 16, 12, 0, 0, 1, 25, 0, 0
    )  # one frame, a part of the picture
    chunk = struct.pack(">I", len(control)) + b"fcTL" + control
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    place = PNG.index(b"IDAT") - 4
    with pytest.raises(BadItem, match=r"animated|damaged"):
        check_image(PNG[:place] + chunk + PNG[place:], "a.png")
    single = encode(picture(), "PNG", save_all=True, append_images=[], default_image=False)
    actl = struct.pack(">I", 8) + b"acTL" + struct.pack(">2I", 1, 0)
    actl += struct.pack(">I", zlib.crc32(actl[4:]))
    place = single.index(b"IDAT") - 4
    with pytest.raises(BadItem, match=r"animated|damaged"):
        check_image(single[:place] + actl + single[place:], "a.png")


@pytest.mark.parametrize("name", [b"tRNS", b"zTXt", b"iCCP", b"fdAT"])
def test_a_png_whose_further_chunks_pillow_cannot_read_is_refused(name):
    bomb = b"a\0\0" + zlib.compress(bytes(2**27))
    content = {b"tRNS": b"a", b"fdAT": b"ab"}.get(name, bomb)
    chunk = struct.pack(">I", len(content)) + name + content
    chunk += struct.pack(">I", zlib.crc32(name + content))
    place = PNG.index(b"IDAT") - 4
    with pytest.raises(BadItem, match="damaged"):
        check_image(PNG[:place] + chunk + PNG[place:], "a.png")


def test_nothing_is_said_of_files_that_pillow_warns_of(recwarn):
    tags = b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + b"\x01\x12\0\x03\0\0\0\x09\0\0\0\0"
    with warnings.catch_warnings(action="always"):
        for data in (encode(picture(), "JPEG", exif=tags), encode(picture(), "PNG", exif=tags)):
            check_image(data, "a")
            check_image(data, "a", check="header")
    assert not recwarn.list
