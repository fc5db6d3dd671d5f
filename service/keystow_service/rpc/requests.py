"""Reading what clients send: messages that may not parse, may be too large, may not come, and may be the last."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from keystow.v1 import storage_pb2
from keystow_service.errors import RequestInvalidError, StreamStalledError, Violation
from keystow_service.rpc.call import Context, current_call
from keystow_service.rpc.field_size import field_size

_MAX_HEADER = 128 * 1024  # bytes; the largest that is valid has a tenth of it
# By the name of the RPC, the number of the header in its requests.
_HEADERS = {
    "Put": storage_pb2.PutRequest.HEADER_FIELD_NUMBER,
    "PutSmall": storage_pb2.PutSmallRequest.HEADER_FIELD_NUMBER,
}
DEPARTURE = 0.25  # seconds within which grpc.aio has seen that a client has left


class Unreadable:
    """Stands for a message that is not valid protobuf or not valid UTF-8."""


class Oversized:
    """Stands for a message that was not parsed, because its header is too large."""


def readable(message: object) -> Any:
    """The message itself. Raises RequestInvalidError for an Unreadable or Oversized."""
    if isinstance(message, Oversized):
        problem = f"has more than {_MAX_HEADER} bytes: shorten its key or its metadata"
        raise RequestInvalidError(f"The request's header {problem}.", violations=[Violation("header", problem)])
    if isinstance(message, Unreadable):
        raise RequestInvalidError(
            "The request is not a valid message: broken protobuf, or text that is not UTF-8.",
            violations=[Violation("", "not a valid message")],
        )
    return message


def tolerant(parse: Callable[[bytes], Message], method: str) -> Callable[[bytes], Message | Unreadable | Oversized]:
    """A deserializer of the method's requests that raises nothing: ``readable`` does, where that has a status."""
    header = _HEADERS.get(method)

    def deserialize(data: bytes) -> Message | Unreadable | Oversized:
        try:
            if header is not None and len(data) > _MAX_HEADER and field_size(data, header) > _MAX_HEADER:
                return Oversized()
            message: Message = parse(data)
        except Exception:  # noqa: BLE001 - whatever the parser says, its text may quote the request
            return Unreadable()
        return message

    return deserialize


async def read(context: Context, patience: float) -> Any:
    """The next message, or grpc.aio.EOF if the client has said that there is none.

    grpc.aio reads EOF also where the client has left or the server stops, and cancels the call only a moment later.
    Raises TimeoutError if nothing comes for ``patience`` seconds.
    """
    async with asyncio.timeout(patience):
        message = await context.read()
    if message is grpc.aio.EOF:
        await asyncio.sleep(DEPARTURE)
    return message


def reading_one(answer: Any, stall_timeout: float) -> Any:
    """A method of one request, as one of streams: on the wire they are the same.

    grpc.aio calls a method of one request only once that is there as a whole, and waits for it without end: until then
    such a call would count nowhere, and hold up to a message's bytes for as long as its client likes.
    """

    async def stream(_: Any, context: Context) -> None:
        try:
            request = await read(context, stall_timeout)
        except TimeoutError:
            raise StreamStalledError(f"The client sent no request for {stall_timeout:.0f} s. Call again.") from None
        if request is grpc.aio.EOF:
            raise RequestInvalidError("The call ended without a request.", violations=[Violation("", "is missing")])
        message = readable(request)
        if (call := current_call.get(None)) is not None:
            call.concerns(tenant_id=_field(message, "tenant_id"), key=_field(message, "key"))
        response = await answer(message, context)
        if response is not None:
            try:
                async with asyncio.timeout(stall_timeout):
                    await context.write(response)
            except TimeoutError:
                raise StreamStalledError(f"The client read nothing for {stall_timeout:.0f} s. Call again.") from None

    return stream


def _field(message: Any, name: str) -> str:
    value = getattr(message, name, "")
    return value if isinstance(value, str) else ""
