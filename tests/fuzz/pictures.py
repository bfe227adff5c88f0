"""Sound picture files of every kind that a folder of images may have."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from trainer.data.images import encode_png


def picture(number: int, width: int = 48, height: int = 40) -> np.ndarray:
    """A picture like no other: shapes, a gradient and noise, uint8 [height, width, 3]."""
    generator = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    planes = [
        128
        + 100 * np.sin(generator.uniform(0.02, 0.3) * rows + generator.uniform(0, 0.3) * columns)
        for _ in range(3)
    ]
    noise = generator.normal(0, 12, (height, width, 3))
    return np.clip(np.stack(planes, axis=-1) + noise, 0, 255).astype(np.uint8)


def good_file(number: int) -> tuple[str, bytes]:
    """The name and content of an image that must be stored as it is; each number gives another."""
    image = Image.fromarray(picture(number, 40 + number % 9, 30 + number % 7))
    kind = number % 5
    if kind == 0:
        return f"good {number}.png", encode_png(np.asarray(image))
    if kind == 1:
        return f"good {number}.jpg", encoded(image.convert("L"), "JPEG")
    if kind == 2:
        return f"good {number}.jpeg", encoded(image, "JPEG", progressive=True, quality=85)
    if kind == 3:
        return f"good {number}.JPEG", encoded(image, "JPEG", subsampling="4:4:4")
    return f"good {number}.PNG", encoded(image.quantize(16), "PNG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.copy().save(file, kind, **options)  # a copy, because saving leaves marks on a picture
    return file.getvalue()


def every_kind() -> dict[str, bytes]:
    """Name -> content of files of each format in each of its forms, some of them unusual."""
    colours = Image.fromarray(picture(0))
    other = Image.fromarray(picture(1))
    grey = colours.convert("L")
    sixteen = Image.fromarray(picture(2)[:, :, 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise

    def moving(kind: str) -> bytes:
        further = [other.copy(), colours.rotate(90)]
        return encoded(colours, kind, save_all=True, append_images=further)

    return {
        "baseline.jpg": encoded(colours, "JPEG", quality=80),
        "optimised.jpg": encoded(colours, "JPEG", optimize=True, subsampling="4:2:2"),
        "progressive.jpg": encoded(colours, "JPEG", progressive=True),
        "restarts.jpg": encoded(colours, "JPEG", restart_marker_blocks=2),
        "grey.jpg": encoded(grey, "JPEG"),
        "cmyk.jpg": encoded(colours.convert("CMYK"), "JPEG"),
        "rgb.jpg": encoded(colours, "JPEG", keep_rgb=True),
        "turned.jpg": encoded(colours, "JPEG", exif=exif),
        "pair.jpg": moving("MPO"),
        "photo.jpg": encoded(Image.fromarray(picture(3, 320, 240)), "JPEG"),
        "colours.png": encoded(colours, "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "transparent.png": encoded(colours.convert("RGBA"), "PNG"),
        "palette.png": encoded(colours.quantize(64), "PNG"),
        "two.png": encoded(grey.convert("1"), "PNG"),
        "sixteen.png": encoded(sixteen, "PNG"),
        "turned.png": encoded(colours, "PNG", exif=exif),
        "moving.png": moving("PNG"),
        "photo.png": encoded(Image.fromarray(picture(4, 320, 240)), "PNG"),
        "still.gif": encoded(colours, "GIF"),
        "moving.gif": moving("GIF"),
        "colours.bmp": encoded(colours, "BMP"),
        "palette.bmp": encoded(colours.quantize(16), "BMP"),
        "plain.tif": encoded(colours, "TIFF"),
        "lzw.tif": encoded(colours, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(colours, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": encoded(colours, "TIFF", compression="jpeg"),
        "pages.tif": moving("TIFF"),
        "sixteen.tif": encoded(sixteen, "TIFF"),
        "lossy.webp": encoded(colours, "WEBP"),
        "lossless.webp": encoded(colours, "WEBP", lossless=True),
        "moving.webp": moving("WEBP"),
    }


def bombs() -> dict[str, bytes]:
    """Name -> content of small files that cost a careless reader minutes or gigabytes."""
    side = 9_000  # 81 million pixels, below what is refused by its size
    plain = Image.new("RGB", (side, side), (9, 200, 40))
    progressive = encoded(plain.resize((3_000, 3_000)), "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    gif = encoded(Image.new("P", (1, 1)), "GIF")
    frame = gif[gif.index(b",", 13) : -1]
    png = encoded(Image.new("L", (9, 9)), "PNG")
    return {
        "pages.tif": _many_pages(60_000),
        "frames.gif": gif[:-1] + 100_000 * frame + gif[-1:],
        "scans.jpg": progressive[:-2] + 90 * last_scan + progressive[-2:],
        "many scans.jpg": progressive[:-2] + 20_000 * last_scan + progressive[-2:],
        "wide.webp": encoded(plain, "WEBP", lossless=True, method=0),
        "wide.png": encoded(plain, "PNG"),
        "wider.png": png[:16] + struct.pack(">2I", 2**31 - 1, 2**31 - 1) + png[24:],
        "wide.tif": encoded(plain, "TIFF", compression="tiff_adobe_deflate"),
        "wide.gif": encoded(plain.convert("P"), "GIF"),
        "padded.jpg": encoded(Image.new("L", (9, 9)), "JPEG") + bytes(2**26),
    }


def _many_pages(count: int) -> bytes:
    """A TIFF of grey pages of one pixel: TIFF 6.0, section 2."""
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 0)]
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<2H2I", *tag) for tag in tags)
    size = len(entries) + 4
    places = [8 + size * (number + 1) for number in range(count - 1)] + [0]
    pages = b"".join(entries + struct.pack("<I", place) for place in places)
    return b"II*\0" + struct.pack("<I", 8) + pages
