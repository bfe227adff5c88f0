"""Sound picture files of every kind that a folder of images may have."""

from __future__ import annotations

import io
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
