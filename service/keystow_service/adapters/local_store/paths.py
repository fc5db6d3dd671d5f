"""Where an object's name is on the disk.

Names are paths, but a segment may have 900 bytes and a file name only 255. So a longer segment is cut into pieces of
200: each but the last is a directory with "+" at its end, each but the first begins with "+", and a name never holds a
"+" of its own. That is injective, no piece can become "..", and listing (listing.py) can join the pieces again.
"""

PIECE_LENGTH = 200
MARK = "+"


def relative_path(name: str) -> str:
    """The path of the object below the store's root; also of a directory of names.

    Raises ValueError for a name that objects/names.py never makes, above all one that would leave the root.
    """
    if not name.isascii() or not name.isprintable() or MARK in name:
        raise ValueError("object names are printable ASCII without '+'")
    pieces: list[str] = []
    for segment in name.split("/"):
        if not segment or segment.startswith("."):
            raise ValueError("object names have no empty segment, and none that starts with a dot")
        pieces.extend(_pieces(segment))
    return "/".join(pieces)


def _pieces(segment: str) -> list[str]:
    cuts = [segment[start : start + PIECE_LENGTH] for start in range(0, len(segment), PIECE_LENGTH)]
    last = len(cuts) - 1
    return [f"{MARK if index else ''}{cut}{MARK if index < last else ''}" for index, cut in enumerate(cuts)]
