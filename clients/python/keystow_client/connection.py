"""One open connection: its stubs, and how a simple call over it is repeated and given up."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc.aio
from google.protobuf.message import Message

from keystow_client.channel import translated
from keystow_client.retry import SAME_CALL, Patience, retrying

if TYPE_CHECKING:  # these names exist only in the stubs
    from keystow.v1.storage_pb2_grpc import StorageServiceAsyncStub
    from keystow.v1.tenants_pb2_grpc import TenantServiceAsyncStub

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Connection:
    """See the module. ``stall_timeout`` is how many seconds of silence are believed."""

    channel: grpc.aio.Channel
    storage: "StorageServiceAsyncStub"
    tenants: "TenantServiceAsyncStub"
    retry: Patience
    stall_timeout: float

    async def call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        *,
        extra_patience: float = 0.0,
    ) -> _Response:
        """The response. Repeated where the failure says that helps. Raises KeystowError."""
        return await retrying(
            lambda: self.call_once(method, request, extra_patience=extra_patience),
            self.retry,
            lambda error: error.recovery in SAME_CALL,
        )

    async def call_once(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        *,
        extra_patience: float = 0.0,
    ) -> _Response:
        """The same, tried once. ``extra_patience`` is how many seconds more the service was asked to take."""
        async with translated(None):
            return await method(request, timeout=self.stall_timeout + extra_patience)
