"""``python -m servers.kms``: the KMS in a process of its own, with a line of JSON that says where; ends by SIGTERM.

Loopback only. Its time is the machine's; keys are made over the wire, by CreateKey.
"""

import argparse
import asyncio
import json
import signal
import sys

from servers.kms.server import DEFAULT_REGION, serving


async def _main(regions: list[str], port: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    ports = {region: port + number if port else 0 for number, region in enumerate(regions)}
    async with serving(ports) as kms:
        sys.stdout.write(json.dumps({"endpoints": kms.endpoints}) + "\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m servers.kms")
    parser.add_argument("--region", action="append", help="a region to serve; may be repeated")
    parser.add_argument("--port", type=int, default=0, help="of the first region, counted up for others; 0: free ones")
    chosen = parser.parse_args()
    asyncio.run(_main(chosen.region or [DEFAULT_REGION], chosen.port))
