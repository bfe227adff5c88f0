"""A folder of examples to be looked at: what it holds, and a page of pictures."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from trainer.artifact import write_text
from trainer.data.examples import decode_example
from trainer.data.manifest import CHANGES, QUARANTINE, Manifest, read_manifest
from trainer.data.notes import read_notes
from trainer.data.pictures import Picture, colour, mask_layer, picture, size_and_kind
from trainer.data.sampling import first_records, spread_records
from trainer.dataset import Content, Feature
from trainer.errors import UserError

COUNTED = 20_000
"""Examples of a split whose labels are counted for the page, evenly spaced over it (ours)."""

LISTED = 200
"""Refused items, or changed ones, that the page lists one by one (ours)."""

_BOXES = 100  # of one example that are drawn
_VALUES = 12  # elements of a feature that are written out
_CHARACTERS = 500  # of a text that are shown
_BARS = 40  # classes up to which each has a bar
_EXTREMES = 12  # most and least frequent classes shown where there are more
_GROUPS = 100  # kinds of reasons that are told apart
_KEYS = 3  # named for each reason

# What sets one reason apart from others of its kind: quoted contents, numbers, names of classes.
_PARTICULAR = re.compile(r"b?'[^']*'|b?\"[^\"]*\"|\d[\d,.]*(?:e[+-]?\d+)?")
# Not to be in a page, and characters that turn the order of others around.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BY_NAME: dict[str, Content] = {name: name for name in ("image", "mask", "box", "label", "text")}


@dataclasses.dataclass(frozen=True)
class Row:
    """One example in a line.

    Attributes:
        split: its split.
        key: its key.
        label: its label or labels by name; empty without.
        pictures: size and format of each picture.
        boxes: number of boxes; None where examples have no boxes.
        masks: number of masks; None where examples have no masks.
        texts: its captions.
    """

    split: str
    key: str
    label: str
    pictures: tuple[str, ...]
    boxes: int | None
    masks: int | None
    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """Items that were refused, or changed, for the same kind of reason.

    Attributes:
        reason: the reason, with … for what differs from item to item.
        expected: what would have been accepted; empty for changes.
        splits: split -> number of items.
        keys: the first few of them.
    """

    reason: str
    expected: str
    splits: Mapping[str, int]
    keys: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of items in all splits."""
        return sum(self.splits.values())


def content_of(name: str, feature: Feature) -> Content:
    """What a feature's values are: as declared, or else by its name, which means the same in every
    batch; transformed examples declare nothing."""
    return feature.content or _BY_NAME.get(name, "")


def rows(folder: str | Path, most: int, split: str = "") -> list[Row]:
    """The first examples of a folder, of all its splits in equal parts or of one.

    Raises:
        UserError: there are no examples, no such split, or a record is damaged.
    """
    manifest = read_manifest(folder)
    return [
        _row(manifest, name, _decode(manifest, name, record))
        for name, part in _parts(manifest, most, split).items()
        for record in first_records(folder, manifest, name, part)
    ]


def groups(folder: str | Path, file: str) -> list[Group]:
    """The entries of a quarantine or of changes, grouped by reason; the most frequent first.

    Args:
        folder: folder of examples.
        file: `QUARANTINE` or `CHANGES`.

    Raises:
        UserError: the file is damaged.
    """
    content = "reason" if file == QUARANTINE else "change"
    found: dict[tuple[str, str], list[Any]] = {}
    for note in read_notes(Path(folder) / file):
        reason = note.get(content, "")
        place = (_PARTICULAR.sub("…", reason), note.get("expected", ""))
        if place not in found and len(found) >= _GROUPS:
            place = ("other reasons", "")
        reasons, splits, keys = found.setdefault(place, [set(), collections.Counter(), []])
        if len(reasons) < 2:
            reasons.add(reason)
        splits[note["split"]] += 1
        if len(keys) < _KEYS:
            keys.append(note["key"])
    grouped = [
        # A reason that is always the same needs no …
        Group(min(reasons) if len(reasons) == 1 else general, expected, splits, tuple(keys))
        for (general, expected), (reasons, splits, keys) in found.items()
    ]
    return sorted(grouped, key=lambda group: (-group.count, group.reason))


def feature_table(manifest: Manifest) -> list[dict[str, str]]:
    """The features of all splits in words; one that splits keep differently has several lines."""
    found: dict[tuple[str, Feature], list[str]] = {}
    for split in manifest.splits:
        for name, feature in manifest.features_of(split).items():
            found.setdefault((name, feature), []).append(split)
    return [
        {
            "name": name,
            "type": feature.dtype,
            "shape": " × ".join("n" if size is None else str(size) for size in feature.shape),
            "kept": "raw bytes" if feature.encoding == "raw" else "list",
            "content": feature.content,
            "splits": "" if len(splits) == len(manifest.splits) else ", ".join(splits),
            "description": feature.description,
        }
        for (name, feature), splits in found.items()
    ]


def write_gallery(folder: str | Path, file: str | Path, most: int, split: str = "") -> int:
    """Writes one page about a folder of examples that needs nothing else: facts, pictures with
    boxes, masks, labels and captions, how often each class comes, what was refused and changed.

    The examples are evenly spaced over each split, and always the same ones.

    Args:
        folder: folder of examples, transformed or not.
        file: the page to write.
        most: how many examples to show, of all splits in equal parts or of one.
        split: the one split to show; empty for all.

    Returns:
        How many examples the page shows.

    Raises:
        UserError: there are no examples, no such split, a record is damaged, or the page cannot be
            written.
    """
    manifest = read_manifest(folder)
    shown = [
        (
            name,
            [
                _card(manifest, name, _decode(manifest, name, record))
                for record in spread_records(folder, manifest, name, part)
            ],
        )
        for name, part in _parts(manifest, most, split).items()
    ]
    page = _template().render(
        manifest=manifest,
        name=Path(folder).resolve().name,
        homepage=_links(manifest.homepage),
        features=feature_table(manifest),
        shown=shown,
        histogram=_histogram(folder, manifest, split),
        quarantine=groups(folder, QUARANTINE),
        refused=_first_notes(folder, QUARANTINE),
        changes=groups(folder, CHANGES),
        changed=_first_notes(folder, CHANGES),
        listed=LISTED,
        has_boxes=any(card["boxes"] for _, cards in shown for card in cards),
        has_masks=any(card["layers"] for _, cards in shown for card in cards),
    )
    try:
        write_text(file, _CONTROLS.sub("�", page))
    except OSError as error:
        raise UserError(
            f"The page must be a file that can be written; {str(file)!r}: {error.strerror}."
        ) from error
    return sum(len(cards) for _, cards in shown)


def _decode(manifest: Manifest, split: str, record: bytes) -> dict[str, Any]:
    try:
        return decode_example(manifest.features_of(split), record)
    except ValueError as error:
        raise UserError(
            f"The records of {split} must be as the manifest declares them; {error} "
            "`paper2hub examples verify` lists all that are not."
        ) from error


def _parts(manifest: Manifest, most: int, split: str) -> dict[str, int]:
    """How many examples of each split to show: equal parts, and more where others have too few."""
    if split:
        manifest.files(".", split)  # refuses a split that there is not
        return {split: min(most, manifest.splits[split].records)}
    parts = {}
    by_size = sorted(manifest.splits, key=lambda name: manifest.splits[name].records)
    for done, name in enumerate(by_size):
        parts[name] = min(most // (len(by_size) - done), manifest.splits[name].records)
        most -= parts[name]
    return {name: parts[name] for name in manifest.splits}


def _of(features: Mapping[str, Feature], content: Content) -> list[str]:
    """Names of the features that hold something."""
    return [name for name, feature in features.items() if content_of(name, feature) == content]


def _pictures_of(features: Mapping[str, Feature]) -> list[str]:
    """Names of the features that can be shown as pictures, the example's image first."""
    found = _of(features, "image")
    for name, feature in features.items():
        shape = feature.shape
        if len(shape) == 3 and shape[2] in (1, 3) and not content_of(name, feature):
            found.append(name)
    return found


def _row(manifest: Manifest, split: str, example: Mapping[str, Any]) -> Row:
    features = manifest.features_of(split)
    boxes, masks = _of(features, "box"), _of(features, "mask")
    return Row(
        split=split,
        key=_text(example["key"]),
        label=_labels(manifest, features, example),
        pictures=tuple(_size_in_words(example[name]) for name in _pictures_of(features)),
        boxes=sum(_boxes_of(example[name]).shape[0] for name in boxes) if boxes else None,
        masks=sum(len(_masks_of(example[name])) for name in masks) if masks else None,
        texts=_texts(features, example),
    )


def _size_in_words(value: Any) -> str:
    try:
        (width, height), kind = size_and_kind(value)
    except ValueError as error:
        return str(error)
    return f"{width} × {height} {kind}"


def _labels(manifest: Manifest, features: Mapping[str, Feature], example: Mapping[str, Any]) -> str:
    """The labels of an example by name, each once, with how often it comes."""
    found = collections.Counter(
        _class_name(label, manifest.class_names)
        for name in _of(features, "label")
        for label in np.ravel(example[name]).tolist()
    )
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in found.items())


def _class_name(label: int, class_names: Sequence[str]) -> str:
    return class_names[label] if 0 <= label < len(class_names) else str(label)


def _texts(features: Mapping[str, Feature], example: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for name in _of(features, "text"):
        value = example[name]
        if isinstance(value, bytes):
            found.append(_text(value))
        elif isinstance(value, np.ndarray) and value.dtype == object:
            found += [_text(text) for text in value.ravel()]
    return tuple(found)


def _boxes_of(value: Any) -> np.ndarray[Any, Any]:
    """Boxes, float64 [n, 4]; none if a feature by that name holds something else."""
    boxes = np.asarray(value)
    if boxes.dtype.kind not in "iuf" or not boxes.ndim or boxes.shape[-1] != 4:
        return np.zeros((0, 4))
    return boxes.reshape(-1, 4).astype(np.float64)


def _masks_of(value: Any) -> list[Any]:
    """The masks of a feature: one, or one for each instance."""
    if not isinstance(value, np.ndarray):
        return [value]
    if value.dtype == object or (value.ndim == 3 and value.shape[2] not in (1, 3)):
        return list(value)
    return [value]


def _card(manifest: Manifest, split: str, example: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of one example."""
    features = manifest.features_of(split)
    pictures: list[Picture] = []
    problems = []
    for name in _pictures_of(features):
        try:
            pictures.append(picture(example[name]))
        except ValueError as error:
            problems.append(f"{name} cannot be shown: {error}")
    layers, regions = [], 0
    for name in _of(features, "mask"):
        masks = _masks_of(example[name])
        if not masks:
            continue
        try:
            layer, count = mask_layer(masks, _segment_order(features, example))
        except ValueError as error:
            problems.append(f"{name} cannot be shown: {error}")
        else:
            layers.append(layer)
            regions += count
    boxes, count = _boxes(manifest, features, example, pictures[0].size) if pictures else ([], 0)
    if not pictures:
        layers, regions = [], 0
    sizes = [
        f"{p.size[0]} × {p.size[1]} {p.kind}{', ' + p.note if p.note else ''}" for p in pictures
    ]
    drawn = f", {len(boxes)} of them drawn" if len(boxes) < count else ""
    counts = [f"{count:,} {'box' if count == 1 else 'boxes'}{drawn}"] if count else []
    counts += [f"{regions:,} masked region{'' if regions == 1 else 's'}"] if regions else []
    card: dict[str, Any] = {
        "key": _text(example["key"]),
        "label": _labels(manifest, features, example),
        "one_label": all(not features[name].shape for name in _of(features, "label")),
        "facts": ", ".join((*sizes, *counts)),
        "pictures": pictures,
        "problems": problems,
        "layers": layers,
        "boxes": boxes,
        "texts": [_shortened(text) for text in _texts(features, example)],
        "details": list(_details(features, example)),
    }
    described = (card["key"], card["label"], *counts, *card["texts"][:1])
    return {**card, "description": _shortened("; ".join(part for part in described if part))}


def _segment_order(features: Mapping[str, Feature], example: Mapping[str, Any]) -> Sequence[int]:
    """The numbers in a mask of segments in the order of the boxes, as panoptic datasets have it."""
    if "segment_id" not in features:
        return ()
    numbers: list[int] = np.ravel(example["segment_id"]).tolist()
    return numbers


def _boxes(
    manifest: Manifest,
    features: Mapping[str, Feature],
    example: Mapping[str, Any],
    size: tuple[int, int],
) -> tuple[list[dict[str, Any]], int]:
    """The boxes in percent of the picture, with the names of their classes; and how many."""
    shown = []
    total = 0
    for name in _of(features, "box"):
        boxes = _boxes_of(example[name])
        names = [""] * len(boxes)
        for label in _of(features, "label"):
            labels = np.ravel(example[label])
            if features[label].shape and len(labels) == len(boxes):
                names = [_class_name(number, manifest.class_names) for number in labels.tolist()]
        total += len(boxes)
        drawn = [n for n, box in enumerate(boxes[:_BOXES]) if np.isfinite(box).all()]
        for number in sorted(drawn, key=lambda n: -_area(boxes[n])):  # small ones are not hidden
            box = boxes[number]
            corners = np.clip(box / np.array([*size, *size]), 0, 1) * 100
            left, top, right, bottom = (round(float(corner), 2) for corner in corners)
            shown.append(
                {
                    "left": left,
                    "top": top,
                    "width": round(max(right - left, 0), 2),
                    "height": round(max(bottom - top, 0), 2),
                    "colour": colour(number),
                    "name": names[number],
                }
            )
    return shown, total


def _area(box: np.ndarray[Any, Any]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _details(
    features: Mapping[str, Feature], example: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The features that are not shown in another way."""
    shown = {"key", *_pictures_of(features)}
    for content in ("mask", "label", "text"):
        shown |= set(_of(features, content))
    for name, value in example.items():
        if name not in shown:
            yield name, _in_words(value)


def _in_words(value: Any) -> str:
    """A value, or the first elements of an array."""
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        return f"{len(value):,} bytes" if "�" in text else _shortened(text)
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, np.ndarray):
        return str(value)
    words = ", ".join(_in_words(element) for element in value.ravel()[:_VALUES].tolist())
    if value.size <= _VALUES:
        return words
    return f"{words}, … ({' × '.join(str(size) for size in value.shape)})"


def _shortened(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _histogram(folder: str | Path, manifest: Manifest, split: str) -> dict[str, Any] | None:
    """How often each class comes in each split; None where there are no labels."""
    counts: dict[str, collections.Counter[int]] = {}
    partly = []
    for name in [split] if split else list(manifest.splits):
        labels = {
            n: manifest.features_of(name)[n] for n in _of(manifest.features_of(name), "label")
        }
        if not labels or any(feature.dtype != "int64" for feature in labels.values()):
            continue
        counts[name] = collections.Counter()
        read = 0
        for record in spread_records(folder, manifest, name, COUNTED):
            example = decode_example(labels, record)
            read += 1
            for value in example.values():
                counts[name].update(np.ravel(value).tolist())
        if read < manifest.splits[name].records:
            partly.append({"split": name, "read": read, "records": manifest.splits[name].records})
    if not counts:
        return None
    classes = sorted(set(range(len(manifest.class_names))).union(*counts.values()))
    totals = {label: sum(found[label] for found in counts.values()) for label in classes}
    order = sorted(classes, key=lambda label: (-totals[label], label))
    most, rarest = (classes, []) if len(classes) <= _BARS else (order[:_EXTREMES], [])
    if len(classes) > _BARS:
        rarest = order[-_EXTREMES:]
    tallest = {name: max(found.values(), default=0) or 1 for name, found in counts.items()}

    def bars(labels: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {
                "name": _class_name(label, manifest.class_names),
                "bars": [
                    {"count": found[label], "share": round(100 * found[label] / tallest[name], 1)}
                    for name, found in counts.items()
                ],
            }
            for label in labels
        ]

    return {
        "splits": list(counts),
        "classes": len(classes),
        "most": bars(most),
        "rarest": bars(rarest),
        "partly": partly,
        "spread": [_spread(name, [found[c] for c in classes]) for name, found in counts.items()],
    }


def _spread(split: str, counts: Sequence[int]) -> dict[str, Any]:
    """How evenly the classes of a split are filled, with a curve over all of them."""
    falling = sorted(counts, reverse=True)
    highest = max(falling[0], 1)
    steps = min(len(falling), 200)
    heights = [falling[step * len(falling) // steps] / highest for step in range(steps)]
    points = [f"{300 * step / steps:.1f},{60 - 60 * h:.1f}" for step, h in enumerate(heights)]
    return {
        "split": split,
        "most": falling[0],
        "median": falling[len(falling) // 2],
        "fewest": falling[-1],
        "absent": sum(1 for count in falling if not count),
        "points": " ".join(["0,60", *points, f"300,{60 - 60 * heights[-1]:.1f}", "300,60"]),
    }


def _first_notes(folder: str | Path, file: str) -> list[dict[str, str]]:
    return list(itertools.islice(read_notes(Path(folder) / file), LISTED))


def _links(homepage: str) -> list[tuple[str, bool]]:
    """The text in pieces, and whether each is an address."""
    pieces = re.split(r"(https?://\S*[^\s,.;])", homepage)
    return [(piece, bool(number % 2)) for number, piece in enumerate(pieces) if piece]


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("gallery.html")
