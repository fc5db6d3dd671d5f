r"""The names of archive members: the keys, made safe to unpack. docs/export.md tells users the same.

A key of ordinary text is its own name. The rest is escaped, so that names stay inside the folder that they are unpacked
into, can be made there, and no two keys share one:

- ``%``, ``\``, control characters, line separators and those that turn text around are written as ``%XX`` for each byte
  of their UTF-8; so are a dot or a space at the end of a segment, which covers ``.`` and ``..``, and a colon in second
  place, which Windows would take for a drive.
- An empty segment is ``%``. A first segment ``.keystow`` is ``%2Ekeystow``: that folder holds the manifests.
- A segment of more than 240 bytes is cut: each piece but the last is a folder that ends in ``%-``.
- A folder whose path is an exported key as well has a ``%`` at its end: ``a`` and ``a/b`` become ``a`` and ``a%/b``.

A ``%`` of the key is always ``%25``, so the lone ones cannot be taken for anything else and a name gives back its key.

The last rule needs to know which beginnings of a key are objects. In the order of List all keys that begin with ``a``
stand together and ``a`` itself comes first; so it is enough to remember those of the last keys that the next one begins
with, at most one for each character of a key (ListedNames).
"""

import re
from collections.abc import Container, Iterator, Sequence

RESERVED = ".keystow"
_MAX_PIECE = 240  # bytes; file names have 255, less what is added here

# Controls, separators, bidirectional embeddings and isolates; and the two rules about places.
_UNSAFE = re.compile(r"[%\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|[. ]\Z|(?<=\A.):", re.DOTALL)
_UNIT = re.compile(r"%..|.", re.DOTALL)


def member_name(key: str, objects: Container[str]) -> str:
    """``objects`` tells which keys are exported as well."""
    *folders, leaf = key.split("/")
    pieces: list[str] = []
    end = -1
    for folder in folders:
        end += 1 + len(folder)
        mark = "%" if key[:end] in objects else ""
        pieces.extend(_pieces(folder, mark, first=not pieces))
    pieces.extend(_pieces(leaf, "", first=not pieces))
    return "/".join(pieces)


class ListedNames:
    """Names of keys that come in the order of List."""

    def __init__(self, last_key: str = "", open_lengths: Sequence[int] = ()) -> None:
        """To go on after ``last_key``, with the ``open_lengths`` of then."""
        self._open = {last_key[:length]: None for length in open_lengths}  # each begins with the one before

    def name(self, key: str) -> str:
        """The name of the next key."""
        while self._open and not key.startswith(next(reversed(self._open))):
            self._open.popitem()
        name = member_name(key, self._open)
        self._open[key] = None
        return name

    def open_lengths(self) -> tuple[int, ...]:
        """Lengths of the beginnings of the last key that are objects, itself among them."""
        return tuple(len(key) for key in self._open)


def _pieces(segment: str, mark: str, *, first: bool) -> Iterator[str]:
    """The escaped segment, cut where it is too long, and its mark."""
    escaped = _UNSAFE.sub(_percent, segment) or "%"
    if first and segment.casefold() == RESERVED:
        escaped = f"%2E{segment[1:]}"
    start = size = 0
    for unit in _UNIT.finditer(escaped) if len(escaped.encode()) > _MAX_PIECE else ():
        length = len(unit[0].encode())
        if size + length > _MAX_PIECE:
            yield f"{escaped[start : unit.start()]}%-"
            start, size = unit.start(), 0
        size += length
    yield escaped[start:] + mark


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())
