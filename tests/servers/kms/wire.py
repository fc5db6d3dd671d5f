"""The wire protocol: JSON 1.1 over HTTP/1.1, one connection with many requests.

https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
"""

import asyncio

from servers.kms.service import FaithfulKms
from servers.kms.signatures import Signed


async def converse(kms: FaithfulKms, region: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what one client asks, until it leaves or an answer is to be dropped."""
    while True:
        answer = await kms.handle(region, await _read(reader))
        if answer.body is None:
            return
        writer.write(
            f"HTTP/1.1 {answer.status} -\r\nx-amzn-RequestId: {answer.request_id}\r\n"
            f"Content-Type: application/x-amz-json-1.1\r\nContent-Length: {len(answer.body)}\r\n\r\n".encode()
            + answer.body
        )
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Signed:
    _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Signed(headers, await reader.readexactly(int(headers["content-length"])))
