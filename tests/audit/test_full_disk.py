"""A disk without room stops nothing silently, and everything goes on by itself once there is room again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from servers.small_disk import small_disk

_TESTS = Path(__file__).parents[1]

hows = pytest.mark.parametrize("how", ["disk", "limit"])


def came_of(directory: Path, mode: str, how: str) -> dict[str, Any]:
    """See filling.py. A limit on file sizes can be set anywhere; a small disk needs a user namespace."""
    directory.mkdir()
    inside = small_disk(directory) if how == "disk" else ()
    command = [*inside, sys.executable, "-m", "audit.filling", str(directory), mode, how]
    environment = {**os.environ, "PYTHONPATH": str(_TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@hows
def test_alarm(tmp_path: Path, how: str) -> None:
    """Nothing is refused; the operator is told; what memory cannot keep is counted, and the count stands in the log."""
    told = came_of(tmp_path / "audit", "alarm", how)
    numbers = [int(request_id.removeprefix("request-")) for request_id in told["written"]]
    assert numbers == sorted(set(numbers))
    lost = sum(gap["lost"] for gap in told["gaps"])
    assert 0 < lost < told["recorded"]
    assert len(numbers) + lost == told["recorded"]
    assert "audit_failing" in told["told"]
    assert told["told"][-1] == "audit_works_again"
    assert told["problems"][0] == {"disk": "ENOSPC", "limit": "EFBIG"}[how]
    assert set(told["found"]) == {"gap"}


@hows
def test_refuse(tmp_path: Path, how: str) -> None:
    """What is begun is recorded, and on the disk before it is answered, if it is; the rest is refused, and counted."""
    told = came_of(tmp_path / "audit", "refuse", how)
    assert told["written"] == [f"request-{number}" for number in range(told["recorded"])]
    assert sum(gap["lost"] for gap in told["gaps"]) == 0
    assert sum(gap["refused"] for gap in told["gaps"]) > 0
    assert told["told"][-1] == "audit_works_again"
    assert set(told["found"]) == {"gap"}
