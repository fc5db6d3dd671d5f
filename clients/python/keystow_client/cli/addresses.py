"""TENANT:KEY, as the command line names objects."""

from dataclasses import dataclass
from pathlib import PurePath

import typer


@dataclass(frozen=True, slots=True)
class ObjectAddress:
    """An object, or a prefix of keys. A key may hold anything, further colons among it."""

    tenant: str
    key: str

    @classmethod
    def parse(cls, text: str) -> "ObjectAddress":
        """Everything after the first colon is the key. Raises typer.BadParameter."""
        tenant, colon, key = text.partition(":")
        if not colon or not tenant:
            raise typer.BadParameter(f"{text!r} names no object: write TENANT:KEY")
        return cls(tenant, key)

    @classmethod
    def parse_object(cls, text: str) -> "ObjectAddress":
        """As parse, with a key. Raises typer.BadParameter."""
        address = cls.parse(text)
        if not address.key:
            raise typer.BadParameter(f"{text!r} has no key: write TENANT:KEY")
        return address

    def child(self, name: str) -> "ObjectAddress":
        """The address of something called ``name`` that is put here: below a prefix, or else exactly here."""
        return ObjectAddress(self.tenant, self.key + name) if self.is_prefix else self

    def below(self, relative: str) -> "ObjectAddress":
        """Something inside the directory that is put here."""
        separator = "" if self.is_prefix else "/"
        return ObjectAddress(self.tenant, self.key + separator + relative)

    @property
    def is_prefix(self) -> bool:
        """Whether names are appended to it: the key is left out, or ends with a slash."""
        return self.key == "" or self.key.endswith("/")

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.tenant}:{self.key}"


class UnsafeKeyError(Exception):
    """The key is no name for a file below a directory."""


def safe_path(key: str) -> PurePath:
    """The relative path that a key is restored to. Raises UnsafeKeyError rather than leaving the directory.

    Nothing is replaced or renamed, so that no two keys meet in one file and every file can be put back under its key.
    """
    parts = key.split("/")
    for part in parts:
        if part in ("", ".", ".."):
            raise UnsafeKeyError(
                f"a key with the segment {part!r} names no file; get it alone, to a name of your choice"
            )
        if "\0" in part or len(PurePath(part).parts) != 1 or PurePath(part).anchor:
            raise UnsafeKeyError(f"the segment {part!r} names no file here; get it alone, to a name of your choice")
    return PurePath(*parts)
