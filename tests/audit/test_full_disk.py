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
    told: dict[str, Any] = printed(*inside, sys.executable, "-m", "audit.filling", str(directory), mode, how)
    return told


def printed(*command: str) -> Any:
    """By a script of ours, as JSON."""
    environment = {**os.environ, "PYTHONPATH": str(_TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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
    assert [gap["refused"] > 0 for gap in told["gaps"]] == [True]  # one line, whatever comes meanwhile
    assert told["told"][-1] == "audit_works_again"
    assert set(told["found"]) == {"gap"}


def test_a_log_that_nobody_reads(tmp_path: Path) -> None:
    """If the server's own log cannot be written any more, calls end as ever, and the audit log has all of them."""
    entries = printed(sys.executable, "-m", "audit.mute", str(tmp_path))
    calls = [(entry["operation"], entry["code"]) for entry in entries if entry["event"] == "rpc"]
    assert calls == [("RegisterTenant", "OK"), ("Put", "OK"), ("Delete", "OK")]
    assert entries[-2]["event"] == "stop"
