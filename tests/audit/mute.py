"""A server whose own log nobody reads any more: `python mute.py DIR`. It prints what is in the audit log as JSON."""

import asyncio
import json
import os
import sys
from pathlib import Path

from audit.writing import entries_of
from keystow.v1.storage_pb2 import DeleteRequest
from keystow_service.log import configure
from keystow_service.settings import LogFormat
from rpc.wire import put
from servers.in_process import register, serving


async def main(data_dir: Path) -> None:
    """See the module."""
    reader, writer = os.pipe()
    os.dup2(writer, sys.stderr.fileno())
    os.close(writer)
    configure(LogFormat.JSON)
    async with serving(data_dir) as server:
        tenant = await register(server, "acme")
        os.close(reader)
        await put(server, tenant, "key", b"content")
        await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="key"))
    print(json.dumps(entries_of(data_dir / "audit")))  # noqa: T201 - to the test
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # else Python cannot end well


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
