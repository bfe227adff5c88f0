"""Synsets of WordNet, by which ImageNet names its classes."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping

WNID = re.compile(r"n\d{8}")
"""A WordNet id of a noun, such as n01440764."""


def class_names(wnids: Iterable[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """A name for each class that no other has: the first of its synonyms.

    Where several classes share it (in ImageNet-1k "crane", a bird and a machine, and "maillot"),
    each gets its id behind it: "crane (n02012849)". A class without words has its id for a name.

    Args:
        wnids: of the classes, in the order of their labels.
        words: id -> synonyms, separated by commas.
    """
    firsts = {wnid: words.get(wnid, "").split(",")[0].strip() or wnid for wnid in wnids}
    uses = collections.Counter(firsts.values())
    return tuple(f"{n} ({wnid})" if uses[n] > 1 else n for wnid, n in firsts.items())
