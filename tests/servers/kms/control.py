"""Turning a KMS that runs in a process of its own: what has no operation of AWS's, as JSON to a path of its own.

Requests are ``{"do": NAME, …}``; the names are the methods of Control. process.py is the other side.
"""

import json
from collections.abc import Mapping
from typing import Any

from servers.kms.faults import Drop, Fault
from servers.kms.log import cloudtrail
from servers.kms.service import FaithfulKms

PATH = "/-/control"
_ACTS = frozenset({"delete", "import_material", "delete_material", "disconnect", "connect", "rotate"})


class Control:
    """Each method is a request, its arguments are the fields, its result is the answer."""

    def __init__(self, kms: FaithfulKms) -> None:
        self._kms = kms

    def answer(self, body: bytes) -> bytes:
        """Raises for requests that are none: the test's own mistake."""
        request: dict[str, Any] = json.loads(body)
        name = request.pop("do")
        if name.startswith("_") or name == "answer":
            raise ValueError(name)
        return json.dumps(getattr(self, name)(**request)).encode()

    def fail(
        self, *, times: int | None = 1, operation: str | None = None, drop: str | None = None, **fields: Any
    ) -> None:
        """The next requests meet a fault; without ``times``, all do until ``end_faults``."""
        fault = Fault(drop=None if drop is None else Drop[drop], **fields)
        if times is None:
            self._kms.faults.fail_always(fault, *([] if operation is None else [operation]))
        else:
            self._kms.faults.fail_next(fault, times, operation=operation)

    def limit(self, *, per_second: float, burst: int = 1) -> None:
        """Throttle what is more."""
        self._kms.faults.limit(per_second, burst)

    def end_faults(self) -> None:
        """And limits."""
        self._kms.faults.end()

    def lag(self, *, seconds: float | None) -> None:
        """Of propagation; None is until ``catch_up``."""
        if seconds is None:
            self._kms.lag.hold()
        else:
            self._kms.lag.seconds = seconds

    def catch_up(self) -> None:
        """All changes are seen."""
        self._kms.lag.catch_up()

    def act(self, *, arn: str, act: str) -> None:
        """On a key: one of those that have no operation, or need material."""
        if act not in _ACTS:
            raise ValueError(act)
        getattr(self._kms[arn], act)()

    def expire_credentials(self, *, access_key_id: str) -> None:
        """They are refused from now on."""
        self._kms.principals.expire(self._kms.principals.everybody[access_key_id])

    def renew_credentials(self, *, access_key_id: str) -> None:
        """They are taken again."""
        self._kms.principals.renew(self._kms.principals.everybody[access_key_id])

    def cloudtrail(self, *, account: str) -> Mapping[str, Any]:
        """That account's log."""
        return cloudtrail(self._kms.requests, account)
