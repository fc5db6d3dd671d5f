"""The HTTP session under the S3 client.

Two things aiohttp does by default would break promises: it sends a PUT or a DELETE again on its own when the connection
breaks, and it copies a body as a whole several times on its way to the socket.
"""

from copy import copy
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

_RUN = 512 * 1024


class Body(Payload):
    """Bytes that are sent once, in runs, from where they are."""

    def __init__(self, value: bytes | bytearray) -> None:
        super().__init__(value)
        self._size = len(value)

    @property
    def consumed(self) -> bool:
        """Always, so that aiohttp never sends it a second time."""
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Demanded by Payload."""
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Waits for the socket between runs."""
        view = memoryview(self._value)
        for start in range(0, len(view), _RUN):
            await writer.write(view[start : start + _RUN])


class OnceSession(AIOHTTPSession):
    """Sends once what has a body, and what deletes: that gets an empty one."""

    async def send(self, request: Any) -> Any:  # the stubs name other types than are passed: AWS…Request and …Response
        """See AIOHTTPSession."""
        if isinstance(request.body, bytes | bytearray) or request.method == "DELETE":
            request = copy(request)
            request.body = Body(request.body or b"")
        return await super().send(request)
