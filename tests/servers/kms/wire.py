"""The wire protocol: JSON 1.1 over HTTP/1.1, one connection with many requests.

https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
"""

import asyncio

from servers.kms.control import PATH, Control
from servers.kms.service import FaithfulKms
from servers.kms.signatures import Signed


async def converse(kms: FaithfulKms, region: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what one client asks, until it leaves or an answer is to be dropped."""
    while True:
        path, request = await _read(reader)
        if path == PATH:
            _write(writer, 200, "", Control(kms).answer(request.body))
        else:
            answer = await kms.handle(region, request)
            if answer.body is None:
                return
            _write(writer, answer.status, answer.request_id, answer.body)
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> tuple[str, Signed]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return first.split(" ")[1], Signed(headers, await reader.readexactly(int(headers["content-length"])))


def _write(writer: asyncio.StreamWriter, status: int, request_id: str, body: bytes) -> None:
    writer.write(
        f"HTTP/1.1 {status} -\r\nx-amzn-RequestId: {request_id}\r\n"
        f"Content-Type: application/x-amz-json-1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
