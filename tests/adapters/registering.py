"""Processes that open one registry at once, as replicas do, and register one tenant, each with its own key."""

import subprocess
import sys
from pathlib import Path

_PROCESS = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
from contract.registry import new_tenant
from keystow_service.adapters.registry import open_registry
from keystow_service.errors import TenantExistsError

async def main():
    async with open_registry(sys.argv[1]) as registry:
        await registry.add(new_tenant("shared"))

try:
    asyncio.run(main())
    print("won")
except TenantExistsError:
    print("lost")
"""


def register_at_once(url: str, processes: int) -> list[str]:
    """What each said, sorted: "lost" or "won"."""
    tests = str(Path(__file__).parent.parent)
    command = [sys.executable, "-W", "error", "-c", _PROCESS, url, tests]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    answers = []
    for process in started:
        with process:
            answers.append(process.communicate()[0].strip())
        assert process.returncode == 0
    return sorted(answers)
