"""What a run made to be looked at: pages, texts, pictures and model cards, within the page."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from pipelines.local.report.artifacts import Artifacts, is_file, place_of
from trainer.model_card import as_html, without_front_matter

# What the page leaves out, and says that it does, for its size (all ours).
_MOST_PAGES, _PAGE_BYTES = 12, 16_000_000
_MOST_PICTURES, _PICTURE_BYTES = 12, 5_000_000
_TEXT_BYTES = 500_000

_LEVELS = 2  # of headings, that the page has above what it embeds
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
}


def pages(found: Artifacts) -> dict[str, Any]:
    """The pages that tasks made."""
    shown: list[dict[str, Any]] = []
    left_out = []
    room = _PAGE_BYTES
    for path, name, artifact in found.of_type("system.HTML"):
        source = found.source(path, name, artifact)
        place = place_of(artifact)
        if place is not None and is_file(place / "index.html"):
            place = place / "index.html"
        try:
            size = place.stat().st_size if place is not None and is_file(place) else room + 1
            if place is None or size > room or len(shown) >= _MOST_PAGES:
                left_out.append(source)
                continue
            content = place.read_text(encoding="utf-8", errors="replace")
        except OSError:
            left_out.append(source)
            continue
        room -= size
        scripts = re.search(r"<script\b", content, re.IGNORECASE) is not None
        shown.append({**source, "content": content, "scripts": scripts})
    return {"shown": shown, "left_out": left_out}


def texts(found: Artifacts) -> list[dict[str, Any]]:
    """The texts that tasks made, as HTML."""
    shown: list[dict[str, Any]] = []
    for path, name, artifact in found.of_type("system.Markdown"):
        text = _read_text(place_of(artifact))
        if text and len(shown) < _MOST_PAGES:
            shown.append({**found.source(path, name, artifact), "content": as_html(text, _LEVELS)})
    return shown


def cards(found: Artifacts) -> list[dict[str, Any]]:
    """The model cards of exports."""
    shown: list[dict[str, Any]] = []
    for path, name, artifact in found.all:
        place = place_of(artifact)
        if place is not None and is_file(place / "export.json") and len(shown) < _MOST_PAGES:
            text = _read_text(place / "README.md")
            if text:
                content = as_html(without_front_matter(text), _LEVELS)
                shown.append({**found.source(path, name, artifact), "content": content})
    return shown


def pictures(found: Artifacts) -> dict[str, Any]:
    """The pictures that tasks made: single ones, and folders of a few."""
    shown: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    room = _PICTURE_BYTES
    for path, name, artifact in found.all:
        files = _picture_files(place_of(artifact))
        missed = len(files)
        for file in files if len(files) <= _MOST_PICTURES else ():
            try:
                content = file.read_bytes() if file.stat().st_size <= room else b""
            except OSError:
                content = b""
            if content and len(shown) < _MOST_PICTURES:
                room -= len(content)
                missed -= 1
                address = f"data:{_picture_type(content)};base64,"
                caption = f"{path}: {name}" if len(files) == 1 else f"{path}: {name}/{file.name}"
                shown.append(
                    {"uri": address + base64.b64encode(content).decode(), "caption": caption}
                )
        if missed:
            left_out.append({**found.source(path, name, artifact), "count": missed})
    return {"shown": shown, "left_out": left_out}


def _picture_files(place: Path | None) -> list[Path]:
    """The pictures at a place, told by how they begin: KFP's files have no endings."""
    if place is None:
        return []
    found = []
    try:
        files = [place]
        if place.is_dir():
            endings = (".png", ".jpg", ".jpeg", ".gif")
            files = sorted(f for f in place.iterdir() if f.suffix.lower() in endings)
        for file in files:
            if file.is_file():
                with open(file, "rb") as content:
                    if _picture_type(content.read(16)):
                        found.append(file)
    except (OSError, ValueError):
        return []
    return found


def _picture_type(content: bytes) -> str:
    """The media type of a picture that begins so; empty where it is none."""
    return next((kind for begin, kind in _PICTURES.items() if content.startswith(begin)), "")


def _read_text(place: Path | None) -> str:
    """A text that a person might read."""
    try:
        if place is None or not is_file(place) or place.stat().st_size > _TEXT_BYTES:
            return ""
        return place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
