"""The store's names for objects: ``objects/<tenant>/_<escaped key>!``.

The escaping keeps ``A-Z a-z 0-9 - _ .`` as they are, writes ``/`` as ``/_`` and every other byte of the key's UTF-8 as
``%XX``. What follows from it, and is shown by tests/objects/test_names.py:

- Different keys have different names, and a name gives back its key.
- Names sort as the escaped keys do, and keys that share a prefix have names that share one: List needs both.
- Every segment of a name begins with ``_``: none is empty, ``.`` or ``..``, and no control character is left.
- Names end in ``!``, which no directory does: ``a`` and ``a/b`` stand side by side in a store made of directories.
"""

from urllib.parse import quote, unquote_to_bytes

from keystow_service.errors import RequestInvalidError, Violation
from keystow_service.model import MAX_KEY_SIZE, ObjectKey, TenantId

ALL_OBJECTS = "objects/"  # in front of every name, and of nothing else


def parse_key(text: str, *, field: str = "key") -> ObjectKey:
    """A key that has a name. Raises RequestInvalidError, naming ``field``, for an empty key, or one too long."""
    if not text:
        raise _invalid(field, "is empty")
    _escape(text, field)
    return ObjectKey(text)


def object_name(tenant_id: TenantId, key: ObjectKey) -> str:
    """Raises RequestInvalidError for an empty key, or one of more than MAX_KEY_SIZE bytes escaped."""
    if not key:
        raise _invalid("key", "is empty")
    return f"{list_prefix(tenant_id, key, field='key')}!"


def list_prefix(tenant_id: TenantId, prefix: str, *, field: str = "prefix") -> str:
    """What the names of exactly those keys begin with that begin with ``prefix``, which may be empty.

    Raises RequestInvalidError, naming ``field``, for more than MAX_KEY_SIZE bytes escaped.
    """
    return f"{ALL_OBJECTS}{tenant_id}/_{_escape(prefix, field)}"


def key_of(tenant_id: TenantId, name: str) -> ObjectKey | None:
    """The key whose name this is; None for a name that no key of this tenant has, and so is not ours."""
    escaped = name.removeprefix(list_prefix(tenant_id, "")).removesuffix("!")
    try:
        key = ObjectKey(unquote_to_bytes(escaped.replace("/_", "/")).decode())
        return key if object_name(tenant_id, key) == name else None
    except (UnicodeError, RequestInvalidError):
        return None


def owner_of(name: str) -> tuple[TenantId, ObjectKey] | None:
    """Whose object has this name; None for a name that keystow gives to none."""
    tenant_id = TenantId(name.removeprefix(ALL_OBJECTS).partition("/")[0])
    key = key_of(tenant_id, name)
    return None if key is None else (tenant_id, key)


def _escape(text: str, field: str) -> str:
    try:
        quoted = quote(text, safe="/", errors="strict")
    except UnicodeEncodeError:
        raise _invalid(field, "is not Unicode text: it holds a lone surrogate") from None
    escaped = quoted.replace("~", "%7E").replace("/", "/_")
    if len(escaped) > MAX_KEY_SIZE:
        raise _invalid(field, f"has {len(escaped)} bytes after escaping; at most {MAX_KEY_SIZE} are allowed")
    return escaped


def _invalid(field: str, description: str) -> RequestInvalidError:
    return RequestInvalidError(f"{field} {description}.", violations=[Violation(field, description)])
