"""The store's names for objects (objects/names.py)."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystow_service.errors import RequestInvalidError
from keystow_service.model import MAX_KEY_SIZE, ObjectKey, TenantId
from keystow_service.objects.names import key_of, list_prefix, object_name

TENANT = TenantId("acme")
ROOT = "objects/acme/"

# Mostly the characters that could go wrong together, and any others.
AWKWARD = st.text(st.one_of(st.sampled_from("ab/._-!%~\0\n é2F😀"), st.characters(codec="utf-8")), max_size=40)
KEYS = AWKWARD.filter(bool).map(ObjectKey)
PLAIN_KEYS = st.text(string.ascii_letters + string.digits + "-_./", min_size=1, max_size=40).map(ObjectKey)


def name(key: str) -> str:
    return object_name(TENANT, ObjectKey(key))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a", "objects/acme/_a!"),
        ("a/b", "objects/acme/_a/_b!"),
        ("/", "objects/acme/_/_!"),
        ("a//b", "objects/acme/_a/_/_b!"),
        ("..", "objects/acme/_..!"),
        ("../../etc/passwd", "objects/acme/_../_../_etc/_passwd!"),
        ("Ab-9_.z", "objects/acme/_Ab-9_.z!"),
        ("a b~!%", "objects/acme/_a%20b%7E%21%25!"),
        ("nul\0nl\n", "objects/acme/_nul%00nl%0A!"),
        ("é😀", "objects/acme/_%C3%A9%F0%9F%98%80!"),
    ],
)
def test_examples(key: str, expected: str) -> None:
    """Readable ASCII stays readable, and nothing else stays at all."""
    assert name(key) == expected


@given(KEYS, KEYS)
def test_different_keys_have_different_names(one: ObjectKey, other: ObjectKey) -> None:
    """The escaping is injective."""
    assert (one == other) == (name(one) == name(other))


@given(KEYS)
def test_a_name_gives_back_its_key(key: ObjectKey) -> None:
    """key_of is the inverse of object_name."""
    assert key_of(TENANT, name(key)) == key


@given(KEYS, AWKWARD)
def test_names_share_prefixes_exactly_as_keys_do(key: ObjectKey, prefix: str) -> None:
    """List by prefix finds the keys that begin with it and no others."""
    assert name(key).startswith(list_prefix(TENANT, prefix)) == key.startswith(prefix)


@given(AWKWARD, AWKWARD.filter(bool))
def test_a_longer_key_keeps_its_prefix(prefix: str, rest: str) -> None:
    """Whatever follows a prefix never changes how the prefix is written."""
    assert name(prefix + rest).startswith(list_prefix(TENANT, prefix))


@given(PLAIN_KEYS, PLAIN_KEYS)
def test_names_of_plain_keys_sort_as_the_keys(one: ObjectKey, other: ObjectKey) -> None:
    """Byte order for letters, digits and '-_./', as the contract of List says."""
    assert (one < other) == (name(one) < name(other))


@given(KEYS, KEYS)
def test_names_sort_as_the_escaped_keys(one: ObjectKey, other: ObjectKey) -> None:
    """The mark at the end of a name never disturbs the order of what is before it."""
    assert (list_prefix(TENANT, one) < list_prefix(TENANT, other)) == (name(one) < name(other))


@given(KEYS)
def test_no_segment_is_dangerous(key: ObjectKey) -> None:
    """Every segment begins with '_', and only safe ASCII is left: no '', '.', '..', no control character."""
    segments = name(key).removeprefix(ROOT).split("/")
    assert all(segment.startswith("_") for segment in segments)
    assert set(name(key)) <= set(string.ascii_letters + string.digits + "-_./%!")


@given(KEYS, KEYS)
def test_no_name_is_the_directory_of_another(one: ObjectKey, other: ObjectKey) -> None:
    """In a store made of directories no object stands where another one needs a directory."""
    assert not name(other).startswith(name(one) + "/")


@given(st.text("_/!%aA2F0Cé.~\0", max_size=12))
def test_foreign_names_are_told_apart(rest: str) -> None:
    """A name is decoded only if it is exactly the name of the key it decodes to."""
    key = key_of(TENANT, ROOT + rest)
    assert key is None or name(key) == ROOT + rest


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        "objects/acme",
        "objects/acme/_!",
        "objects/acme/_a",
        "objects/acme/a!",
        "objects/acme/_a/b!",
        "objects/acme/_a%2f!",
        "objects/acme/_%61!",
        "objects/acme/_%FF!",
        "objects/acme/_%!",
        "objects/acme/_a~!",
        "objects/acme/_a!!",
        "objects/acme/_é!",
        "objects/acme/_\udcff!",  # a file whose name is no UTF-8
        "objects/acme2/_a!",
        "objects/acme/_" + "a" * 901 + "!",
    ],
)
def test_what_no_key_is_stored_under(foreign: str) -> None:
    """Other things in the bucket have no key, and do not break anything."""
    assert key_of(TENANT, foreign) is None


@pytest.mark.parametrize(
    "longest", ["a" * MAX_KEY_SIZE, "/" * (MAX_KEY_SIZE // 2), "é" * (MAX_KEY_SIZE // 6), "\0" * (MAX_KEY_SIZE // 3)]
)
def test_the_limit_counts_escaped_bytes(longest: str) -> None:
    """900 bytes after escaping are allowed and one character more is not, for keys and prefixes alike."""
    assert key_of(TENANT, name(longest)) == longest
    assert name(longest).startswith(list_prefix(TENANT, longest))
    with pytest.raises(RequestInvalidError) as key_error:
        name(longest + "a")
    assert [violation.subject for violation in key_error.value.violations] == ["key"]
    with pytest.raises(RequestInvalidError) as prefix_error:
        list_prefix(TENANT, longest + "a")
    assert [violation.subject for violation in prefix_error.value.violations] == ["prefix"]


@pytest.mark.parametrize("key", ["", "a\ud800"])
def test_keys_that_are_none(key: str) -> None:
    """An empty key, and text that has no UTF-8, are refused by name."""
    with pytest.raises(RequestInvalidError) as error:
        name(key)
    assert [violation.subject for violation in error.value.violations] == ["key"]


def test_names_fit_an_s3_key() -> None:
    """The longest tenant id and key leave room for a bucket prefix in S3's 1,024 bytes."""
    longest = object_name(TenantId("t" * 63), ObjectKey("k" * MAX_KEY_SIZE))
    assert len(longest) == 974
