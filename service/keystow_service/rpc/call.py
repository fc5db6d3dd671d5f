"""One RPC under way: who called, about what, how much flowed. The interceptor opens it, servicers add to it."""

import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeAlias

import grpc

from keystow_service.audit import Action, KeyUses, RpcEnded
from keystow_service.errors import RequestInvalidError
from keystow_service.model import ANONYMOUS, MAX_KEY_SIZE, Caller, TenantId
from keystow_service.rpc import translate

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True)
class Call:
    """What the log line and ErrorInfo of an RPC are made of."""

    method: str
    caller: Caller = ANONYMOUS
    request_id: str = field(default_factory=lambda: secrets.token_hex(8))
    about: dict[str, str] = field(default_factory=dict)  # ErrorInfo metadata that the request itself gives
    bytes_in: int = 0  # plaintext received
    bytes_out: int = 0  # plaintext sent
    last_plaintext: datetime | None = None  # when some was last handed to the transport

    def hands_out(self) -> None:
        """Plaintext goes to the transport now."""
        self.last_plaintext = datetime.now(UTC)

    def concerns(self, *, tenant_id: str = "", key: str = "", upload_id: str = "") -> None:
        """Remember what the request names. What is too long to be a name would make its status too large to send."""
        named = {"tenantId": tenant_id, "objectKey": key, "uploadId": upload_id}
        self.about.update({name: value for name, value in named.items() if 0 < len(value.encode()) <= MAX_KEY_SIZE})

    def action(self) -> Action:
        """Who does what, for the audit log: a text that is no tenant's id is nobody's."""
        return Action(self.request_id, self.caller.principal, self.method, _tenant_id(self.about.get("tenantId", "")))

    def ended(self, code: str, reason: str, seconds: float, peer: str, key_uses: tuple[KeyUses, ...]) -> RpcEnded:
        """Its audit record."""
        return RpcEnded(
            self.action(),
            peer=peer,
            object_key=self.about.get("objectKey", ""),
            code=code,
            reason=reason,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            last_plaintext=self.last_plaintext,
            seconds=seconds,
            key_uses=key_uses,
        )


@lru_cache(maxsize=1024)  # of every call
def _tenant_id(text: str) -> TenantId | None:
    try:
        return translate.tenant_id(text)
    except RequestInvalidError:
        return None


current_call: ContextVar[Call] = ContextVar("current_call")
