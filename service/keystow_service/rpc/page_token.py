"""Page tokens: where a list goes on, bound to what is being listed.

A token is no secret and no permission: the next page is scoped by its own request again.
"""

import base64
import hashlib

from keystow_service.errors import PageTokenInvalidError

_VERSION = b"\x01"
_BINDING_SIZE = 8


def encode(last: str, *, scope: str) -> str:
    """The token that goes on after ``last`` in a list of ``scope``."""
    return base64.urlsafe_b64encode(_binding(scope) + last.encode()).decode("ascii")


def decode(token: str, *, scope: str) -> str:
    """What ``encode`` was given; empty for an empty token. Raises PageTokenInvalidError."""
    if not token:
        return ""
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        last = raw[len(_binding(scope)) :].decode()
    except ValueError:
        raise invalid() from None
    if not raw.startswith(_binding(scope)) or not last:
        raise invalid()
    return last


def _binding(scope: str) -> bytes:
    return _VERSION + hashlib.sha256(scope.encode()).digest()[:_BINDING_SIZE]


def invalid() -> PageTokenInvalidError:
    """For a token that holds what no list gave out."""
    return PageTokenInvalidError(
        "The page token is unreadable, or belongs to another list. List again from the beginning."
    )
