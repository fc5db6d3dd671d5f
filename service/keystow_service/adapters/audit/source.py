"""The files of an audit log, read line by line in constant memory, also those that were compressed since."""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from keystow_service.adapters.audit.claims import Claim
from keystow_service.adapters.audit.keys import AuditError
from keystow_service.adapters.audit.line import FILE_NAME, MAX_LINE, parse

_SUFFIX = ".gz"

Progress = Callable[[int], None]  # is told how many more bytes of files were read


@dataclass(frozen=True, slots=True)
class Line:
    """``text`` is without its newline; one that had none is not ``whole``."""

    file: Path
    number: int
    text: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Source:
    """A file, looked through once: whose it is, and which part of the chain."""

    path: Path
    writer: str
    first_seq: int
    content: bytes  # SHA-256


def files_in(paths: Iterable[Path]) -> Sequence[Path]:
    """These, and for directories the audit files in them. Raises OSError."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.iterdir() if FILE_NAME.fullmatch(each.name.removesuffix(_SUFFIX)))
        else:
            found.append(path)
    return found


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """What is in a file, and the file itself, which is not the same if it is compressed. Raises OSError, AuditError."""
    with path.open("rb") as raw:
        if path.suffix != _SUFFIX:
            yield raw, raw
            return
        try:
            with gzip.GzipFile(fileobj=raw) as file:
                yield cast("BinaryIO", file), raw
        except (gzip.BadGzipFile, zlib.error, EOFError):
            raise AuditError(f"{path} is damaged: it cannot be decompressed.") from None


def lines_of(path: Path, progress: Progress) -> Iterator[Line]:
    """Of a line that is too long to be one of ours, the front is given. Raises OSError, AuditError."""
    with opened(path) as (file, raw):
        number, position = 0, 0
        while text := file.readline(MAX_LINE):
            number += 1
            whole = text.endswith(b"\n")
            yield Line(path, number, text.removesuffix(b"\n"), whole)
            while not whole and (rest := file.readline(MAX_LINE)):
                whole = rest.endswith(b"\n")
            now = raw.tell()
            progress(now - position)
            position = now


def writer_of(path: Path) -> str:
    """As the file's name says; if it says nothing, the name."""
    named = FILE_NAME.fullmatch(path.name.removesuffix(_SUFFIX))
    return named["writer"] if named else path.name


def examine(path: Path, seen: Callable[[Claim], None], progress: Progress) -> Source:
    """``seen`` is told what the file says of other chains. Raises OSError, AuditError."""
    writer, first_seq = writer_of(path), 0
    content = hashlib.sha256()
    for line in lines_of(path, progress):
        content.update(line.text + b"\n")
        telling = b'"others":[' in line.text
        if first_seq and not telling:
            continue
        with suppress(ValueError):
            entry = parse(line.text)
            if not first_seq:
                writer, first_seq = entry.writer, entry.seq
            if telling:
                for end in entry.ends():
                    seen(Claim(end, path, line.number))
    return Source(path, writer, first_seq, content.digest())
