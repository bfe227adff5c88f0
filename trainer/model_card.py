"""Model cards, and other Markdown of a run, as HTML to be embedded in a page of ours."""

from __future__ import annotations

import re
from typing import Any

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def without_front_matter(card: str) -> str:
    """A model card without what it says to a Hub rather than to a person."""
    return _FRONT_MATTER.sub("", card)


def as_html(text: str, below: int = 0) -> Any:
    """Markdown as HTML: what it holds of HTML is shown as text, and a picture becomes a link.

    Args:
        text: the Markdown.
        below: by how many levels to lower its headings, to fit below those of the page.

    Returns:
        A `markupsafe.Markup`, which a template takes as it is.
    """
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + below, 6)}"
    # Safe: the reader escapes all that is not Markdown, and refuses addresses that are scripts.
    return Markup(reader.renderer.render(tokens, reader.options, {}))  # noqa: S704
