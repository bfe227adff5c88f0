"""Lists in a JSON file that is too large to hold, one element at a time."""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from trainer.errors import UserError

LONGEST = 2**24
"""Characters, 16 Mi (ours), after which a value is no longer waited for: an element of COCO's lists
has some thousands."""

_CHUNK = 2**20  # bytes read at once
_WHITE = " \t\n\r"  # RFC 8259, section 2


def read_lists(path: Path, names: Collection[str]) -> Iterator[tuple[str, Any, str]]:
    """The elements of lists that are members of the object a JSON file consists of.

    Memory holds one element and about a MiB of the file. Python's own parser takes the elements
    apart: it limits how deep they nest, while a stream of events (ijson 3.6) needs 4 GB for 40 kB
    of opening brackets.

    Args:
        path: the file, in UTF-8.
        names: of the lists; other members of the object are passed over.

    Yields:
        The list's name, the element, and the element's text as it stands in the file.

    Raises:
        UserError: the file is damaged, a list is missing, there twice, or no list.
    """
    try:
        with open(path, "rb") as file:
            window = _Window(path, file)
            found = []
            window.take("{")
            while True:
                name, _ = window.value()
                if not isinstance(name, str):
                    raise window.wrong("has something else where a name must be")
                window.take(":")
                if name not in names:
                    window.value()
                elif name in found:
                    raise window.wrong(f"has a second list {name!r}")
                elif window.next() != "[":
                    raise window.wrong(f"has something else where the list {name!r} must be")
                else:
                    found.append(name)
                    yield from ((name, *element) for element in _elements(window))
                if window.take("}", ","):
                    break
            if window.next():
                raise window.wrong("goes on after its end")
    except OSError as error:
        raise UserError(f"{path} must be readable; it is not ({error.strerror}).") from error
    missing = sorted(set(names) - set(found))
    if missing:
        raise UserError(f"{path} must have the list {missing[0]!r}; it has none. Get it again.")


def _elements(window: _Window) -> Iterator[tuple[Any, str]]:
    window.take("[")
    if window.next() == "]":
        window.take("]")
        return
    while True:
        yield window.value()
        if window.take("]", ","):
            return


class _Window:
    """The part of a JSON text that is being looked at."""

    def __init__(self, path: Path, file: BinaryIO):
        self._path = path
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._parse = json.JSONDecoder().raw_decode
        self._text = ""
        self._place = 0  # in the text
        self._before = 0  # characters of the file before the text
        self._ended = False

    def next(self) -> str:
        """The next character that is not white space, which stays; "" at the end."""
        while True:
            text, place = self._text, self._place
            while place < len(text) and text[place] in _WHITE:
                place += 1
            self._place = place
            if place < len(text):
                return text[place]
            if not self._more():
                return ""

    def take(self, *marks: str) -> bool:
        """Takes the next character, which must be one of the marks; whether it is the first."""
        mark = self.next()
        if mark not in marks or not mark:
            raise self.wrong(f"has {mark!r}, not {' or '.join(map(repr, marks))},")
        self._place += 1
        return mark == marks[0]

    def value(self) -> tuple[Any, str]:
        """Takes the next value; it and its text."""
        self.next()
        while True:
            try:
                value, end = self._parse(self._text, self._place)
            except json.JSONDecodeError as error:
                ahead = error.pos - self._place
                if self._more():
                    continue
                raise self.wrong(f"is cut short or damaged ({error.msg})", ahead) from error
            except RecursionError as error:
                raise self.wrong("has a value that nests too deep") from error
            except ValueError as error:  # a number of thousands of digits
                raise self.wrong(f"has a value that cannot be used ({error})") from error
            # A number at the end of the text may go on: "1" as "12", "1.5" or "1e-5".
            if end >= len(self._text) - 2 and self._more():
                continue
            text = self._text[self._place : end]
            self._place = end
            return value, text

    def wrong(self, what: str, ahead: int = 0) -> UserError:
        """The error that says what is wrong here, or some characters ahead."""
        place = self._before + self._place + ahead
        return UserError(
            f"{self._path} must be a COCO annotation file, which is JSON; it {what} at character "
            f"{place:,}. Get the file again."
        )

    def _more(self) -> bool:
        """Lengthens the text and forgets what was taken; False, if it cannot or must not be longer.

        What is left doubles, so that a value is not parsed from its beginning too often.
        """
        left = self._text[self._place :]
        if self._ended or len(left) > LONGEST:
            return False
        data = self._file.read(max(_CHUNK, len(left)))
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            what = f"is not UTF-8 ({error.reason})"
            raise self.wrong(what, len(left) + error.start) from error
        if not data:
            self._ended = True
            return False
        self._before += self._place
        self._text, self._place = left + text, 0
        return True
