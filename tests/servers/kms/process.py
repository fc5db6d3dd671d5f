"""The KMS in a process of its own, for tests that run real server processes, stopped by its pid."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.kms.control import PATH

_TESTS = Path(__file__).parents[2]
_STOP_TIMEOUT = 30


@dataclass(frozen=True, slots=True)
class KmsProcess:
    """A running one. Customers act through its endpoints, with principals.CUSTOMER's credentials."""

    endpoints: Mapping[str, str]  # by region

    def control(self, do: str, **fields: Any) -> Any:
        """One request to control.py, and its answer."""
        url = next(iter(self.endpoints.values())) + PATH
        request = urllib.request.Request(url, json.dumps({"do": do, **fields}).encode())  # noqa: S310 - a loopback URL
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_STOP_TIMEOUT) as answer:
            return json.load(answer)


@contextmanager
def kms_process(*regions: str) -> Iterator[KmsProcess]:
    """Start one, and stop exactly that process at the end."""
    command = [sys.executable, "-m", "servers.kms", *(f"--region={region}" for region in regions)]
    environment = {**os.environ, "PYTHONPATH": str(_TESTS)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            yield KmsProcess(json.loads(process.stdout.readline())["endpoints"])
        finally:
            process.terminate()
            process.wait(_STOP_TIMEOUT)
