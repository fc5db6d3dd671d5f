"""An HTTP proxy between the S3 client and a real S3 server, which knows S3's operations and makes what goes wrong.

It runs in the test's own event loop. To a server whose conditional writes are not as atomic as S3's it hands requests
one at a time. A fault hits the requests that it is planned for; all others pass untouched.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from servers.gate import Gate
from servers.listener import break_off, listening


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came from the client."""

    operation: str  # S3's name of it, for example "UploadPart"
    target: str
    headers: Mapping[str, str]  # names in lower case
    head: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer in the server's place with an S3 error; with ``forwarded`` after the server has done its work."""

    status: int
    code: str
    forwarded: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raw:
    """Answer in the server's place with exactly these bytes, and close the connection."""

    answer: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection instead of answering; with ``forwarded`` after the server has done its work."""

    forwarded: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection after so many bytes of the answer's body."""

    after: int


@dataclass(frozen=True, slots=True)
class Unread:
    """Break the connection before the request's body is read."""


Fault = Answer | Raw | Reset | Cut | Unread


class S3Proxy:
    """See the module."""

    def __init__(self, server: str, at_once: int) -> None:
        """``server`` is the S3 server's address, for example "http://127.0.0.1:5000"."""
        address = urlsplit(server)
        self._host, self._port = address.hostname or "", address.port or 80
        self._plans: dict[str, deque[Fault | None]] = {}
        self._always: dict[str, Fault] = {}
        self._gates: dict[str, Gate] = {}
        self._edits: dict[str, Callable[[bytes], bytes]] = {}
        self._turns = asyncio.Semaphore(at_once)
        self._listener = AsyncExitStack()
        self._changed = asyncio.Condition()
        self._served = 0
        self.requests: list[Request] = []
        self.endpoint = ""

    def plan(self, operation: str, *faults: Fault | None) -> None:
        """What befalls the next requests of an operation, in turn; None lets one pass."""
        self._plans.setdefault(operation, deque()).extend(faults)

    def always(self, operation: str, fault: Fault) -> None:
        """What befalls each request of an operation for which nothing else is planned."""
        self._always[operation] = fault

    def hold(self, operation: str) -> Gate:
        """Have requests of an operation wait before the server."""
        return self._gates.setdefault(operation, Gate())

    def edit(self, operation: str, edit: Callable[[bytes], bytes]) -> None:
        """Change the server's answers to an operation, head and body."""
        self._edits[operation] = edit

    def count(self, operation: str) -> int:
        """How many requests of an operation have come."""
        return sum(request.operation == operation for request in self.requests)

    async def came(self, operation: str, count: int) -> None:
        """Return once so many requests of an operation have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.count(operation) >= count)

    async def idle(self) -> None:
        """Return once every request that has come has had its effect, also those whose client is gone."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._served == len(self.requests))

    async def start(self) -> None:
        """Listen on a free loopback port."""
        port = await self._listener.enter_async_context(listening(self._converse, limit=1 << 20))
        self.endpoint = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Listen no more, and end all connections. May be called twice."""
        await self._listener.aclose()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (head := await _read_head(reader)) is not None:
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            operation, headers = _operation(method, target), _headers(head)
            fault = self._fault(operation)
            length = 0 if fault == Unread() else int(headers.get("content-length", "0"))
            request = Request(operation, target, headers, head, await reader.readexactly(length))
            async with self._changed:
                self.requests.append(request)
                self._changed.notify_all()
            try:
                if not await self._serve(request, fault, writer):
                    break
            finally:
                async with self._changed:
                    self._served += 1
                    self._changed.notify_all()

    async def _serve(self, request: Request, fault: Fault | None, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        if (gate := self._gates.get(request.operation)) is not None:
            await gate.wait()
        match fault:
            case None:
                writer.write(await self._forward(request))
            case Raw(answer):
                writer.write(answer)
                await writer.drain()
                return False
            case Answer(forwarded=forwarded):
                if forwarded:
                    await self._forward(request)
                writer.write(_error(fault))
            case Reset(forwarded):
                if forwarded:
                    await self._forward(request)
                writer.transport.abort()
                return False
            case Unread():
                writer.transport.abort()
                return False
            case Cut(after):
                whole = await self._forward(request)
                writer.write(whole[: whole.index(b"\r\n\r\n") + 4 + after])
                await writer.drain()
                return False
        await writer.drain()
        return True

    def _fault(self, operation: str) -> Fault | None:
        plan = self._plans.get(operation)
        return plan.popleft() if plan else self._always.get(operation)

    async def _forward(self, request: Request) -> bytes:
        """The server's whole answer."""
        async with self._turns:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            try:
                writer.write(request.head + request.body)
                head = await reader.readuntil(b"\r\n\r\n")
                headers = _headers(head)
                bodiless = request.operation == "HeadObject" or head[9:12] in (b"204", b"304")
                answer = head + (b"" if bodiless else await _body(reader, headers))
            finally:
                await break_off(writer)
        edit = self._edits.get(request.operation)
        return answer if edit is None else _measured(edit(answer))


@asynccontextmanager
async def s3_proxy(server: str, *, at_once: int = 1) -> AsyncIterator[S3Proxy]:
    """A running proxy before ``server``, which is given so many requests at once."""
    proxy = S3Proxy(server, at_once)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def _read_head(reader: asyncio.StreamReader) -> bytes | None:
    """None at the end of the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None


def _headers(head: bytes) -> Mapping[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers["content-length"]))
    runs = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        runs += line + await reader.readexactly(int(line, 16) + 2)
        if line == b"0\r\n":
            return runs


def _measured(answer: bytes) -> bytes:
    """With the length that its body has now."""
    head, body = answer.split(b"\r\n\r\n", 1)
    length = b"Content-Length: %d" % len(body)
    return re.sub(rb"(?i)content-length: [0-9]+", length, head) + b"\r\n\r\n" + body


def _operation(method: str, target: str) -> str:
    """S3's name of a path-style request."""
    address = urlsplit(target)
    query = parse_qs(address.query, keep_blank_values=True)
    of_object = "/" in address.path.strip("/")
    if "uploads" in query:
        return "CreateMultipartUpload" if method == "POST" else "ListMultipartUploads"
    if "uploadId" in query:
        multipart = {"PUT": "UploadPart", "GET": "ListParts", "POST": "CompleteMultipartUpload"}
        return multipart.get(method, "AbortMultipartUpload")
    if not of_object:
        return "ListObjectsV2"
    return f"{method.capitalize()}Object"


def _error(answer: Answer) -> bytes:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{answer.code}</Code>'
        "<Message>foreign text with a secret</Message><RequestId>REQUEST1</RequestId></Error>"
    ).encode()
    lines = [f"{name}: {value}" for name, value in {**answer.headers, "x-amz-request-id": "REQUEST1"}.items()]
    head = [f"HTTP/1.1 {answer.status} Injected", *lines, "Content-Type: application/xml"]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body
