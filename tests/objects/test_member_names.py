"""The names of archive members: safe to unpack anywhere, the keys themselves where they can be, and never two alike."""

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keystow_service.errors import RequestInvalidError
from keystow_service.model import MAX_KEY_SIZE, ObjectKey, TenantId
from keystow_service.objects.export.manifest import manifest_name
from keystow_service.objects.export.member_names import ListedNames, member_name
from keystow_service.objects.names import object_name

# What clashes, or leads astray, more often than chance would have it.
TRICKY = "a./%\\ :\0\n\u202eé-"
KEYS = st.text(alphabet=st.sampled_from(TRICKY), min_size=1, max_size=8) | st.text(min_size=1, max_size=40)
LONG = st.text(alphabet=st.sampled_from("a%é/"), min_size=230, max_size=290)


def has_name(key: str) -> bool:
    """Whether keystow would take the key."""
    try:
        object_name(TenantId("acme"), ObjectKey(key))
    except RequestInvalidError:  # too long, or not Unicode
        return False
    return True


TENANTS_KEYS = st.sets((KEYS | LONG).filter(has_name), min_size=1, max_size=20)


def listed(keys: Iterable[str]) -> list[str]:
    """In the order of List."""
    return sorted(keys, key=lambda key: object_name(TenantId("acme"), ObjectKey(key)))


def key_of(name: str) -> str:
    """What the documentation says that a name means."""
    *folders, leaf = name.replace("%-/", "").split("/")
    segments = [re.sub("%$", "", folder) if folder != "%" else folder for folder in folders] + [leaf]
    return "/".join("" if segment == "%" else unquote_to_bytes(segment).decode() for segment in segments)


@pytest.mark.parametrize(
    "key",
    [
        "docs/a.txt",
        "a",
        "2026-11-23T10:00:00Z/report final (2).json",
        ".hidden/..x/...y",
        "Österreich/ß/日本語.txt",
        "-rf",
        "~root",
        "x/.keystow/y",
        "a" * 240 + "/b",
    ],
)
def test_readable_keys_are_their_own_names(key: str) -> None:
    """What a person would call a path stays what it is."""
    assert member_name(key, frozenset()) == key


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (".", "%2E"),
        ("..", ".%2E"),
        ("../etc/passwd", ".%2E/etc/passwd"),
        ("/etc/passwd", "%/etc/passwd"),
        ("a//b/", "a/%/b/%"),
        ("/", "%/%"),
        ("100%", "100%25"),
        ("a\\b", "a%5Cb"),
        ("C:/Windows", "C%3A/Windows"),
        ("nul\0tab\t", "nul%00tab%09"),
        ("aux. ", "aux.%20"),
        (".. /x", "..%20/x"),
        ("gnp\u202exe.", "gnp%E2%80%AExe%2E"),
        (".keystow/MANIFEST-00001.jsonl", "%2Ekeystow/MANIFEST-00001.jsonl"),
        (".KEYSTOW", "%2EKEYSTOW"),
        ("x" * 241, "x" * 240 + "%-/x"),
        ("é" * 121 + "/b", "é" * 120 + "%-/é/b"),
    ],
)
def test_the_rest_is_escaped(key: str, name: str) -> None:
    """The examples of docs/export.md, and what attackers try."""
    assert member_name(key, frozenset()) == name
    assert key_of(name) == key


def test_an_object_beside_a_folder() -> None:
    """`a` keeps its name, and what is below `a/` moves aside; nothing else does, however close it sorts."""
    keys = ["a", "a b", "a-b", "a.txt", "a/", "a//c", "a/b", "a/b/c", "a/d", "ab/c"]
    assert keys == listed(keys)
    names = ListedNames()
    assert [names.name(key) for key in keys] == [
        "a", "a b", "a-b", "a.txt", "a%/%", "a%/%%/c", "a%/b", "a%/b%/c", "a%/d", "ab/c",
    ]  # fmt: skip


@given(keys=TENANTS_KEYS)
@example(keys={"a", "a/b", "a%/b", "a%"})
@example(keys={"a" * 240 + "%-/a", "a" * 241, "a" * 240 + "/a", "a" * 240})
def test_names_of_one_archive(keys: set[str]) -> None:
    """No two alike, none another's folder, each gives back its key, and all can be made inside the folder."""
    names = ListedNames()
    named = {key: names.name(key) for key in listed(keys)}
    folders = {str(folder) for name in named.values() for folder in PurePosixPath(name).parents}
    assert len(set(named.values())) == len(keys)
    assert not folders & {*named.values(), manifest_name(1)}
    assert manifest_name(1).split("/")[0] not in folders
    for key, name in named.items():
        assert key_of(name) == key
        assert is_safe(name), name


def is_safe(name: str) -> bool:
    """Whether unpacking it on any system can only make a file inside the folder."""
    segments = name.split("/")
    return (
        all(segment not in {"", ".", ".."} and len(segment.encode()) <= 255 for segment in segments)
        and not any(segment.endswith((".", " ")) for segment in segments)
        and not re.search(r"[\x00-\x1f\x7f-\x9f\\\u2028-\u202e\u2066-\u2069]", name)
        and not PurePosixPath(name).is_absolute()
        and not PureWindowsPath(name).anchor
        and len(name.encode()) < 2 * MAX_KEY_SIZE
    )


@given(keys=TENANTS_KEYS)
def test_keys_that_the_caller_names(keys: set[str]) -> None:
    """In any order they have the names that a list of exactly them would give."""
    names = ListedNames()
    assert {key: names.name(key) for key in listed(keys)} == {key: member_name(key, keys) for key in keys}


@given(keys=TENANTS_KEYS)
def test_a_continuation_gives_the_same_names(keys: set[str]) -> None:
    """Wherever it begins, the last key and the lengths of then are enough."""
    whole = ListedNames()
    for last, following in pairwise(listed(keys)):
        whole.name(last)
        assert ListedNames(last, whole.open_lengths()).name(following) == member_name(following, keys)


def test_what_has_to_be_remembered_is_bounded() -> None:
    """A tenant can have no more keys that begin with one another than the longest has characters."""
    names = ListedNames()
    for length in range(1, MAX_KEY_SIZE + 1):
        names.name("a" * length)
    assert names.open_lengths() == tuple(range(1, MAX_KEY_SIZE + 1))
    names.name("b")
    assert names.open_lengths() == (1,)
