"""The life of uploads that nobody finishes, on real servers whose clock is turned: expired, then removed."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from clock import FakeClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from rpc.interrupted import PART, ResumablePut, interrupted, resume
from rpc.wire import MIB, chunk, content, failure, finish, get, header, until
from servers.beginnings import Beginnings
from servers.in_process import DATA_CENTER, Server, register, serving
from servers.moto import MotoServer
from servers.on_aws import aws_place
from servers.s3_proxy import Answer, s3_proxy

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "acme"
DATA = content(PART + MIB)
DAY = timedelta(days=1).total_seconds()


async def resumed(server: Server, before: ResumablePut) -> None:
    """Go on from the last token, to the end."""
    stream = await resume(server, before, before.progress[-1].resume_token)
    await stream.send(DATA, (await stream.told()).persisted_size)
    await stream.end(len(DATA))


# --- Seven days -------------------------------------------------------------------------------------------------------


async def test_tokens_are_of_use_for_seven_days(tmp_path: Path) -> None:
    """To the second: from the Put's beginning on, however often the upload is continued."""
    clock = FakeClock()
    async with serving(tmp_path, clock) as server:
        await register(server, TENANT)
        before = await interrupted(server, TENANT, DATA, PART)
        expire_time = before.progress[-1].expire_time.ToDatetime(UTC)
        assert expire_time == clock.now() + timedelta(days=7)
        clock.advance(7 * DAY - 1)
        stream = await resume(server, before, before.progress[-1].resume_token)
        assert (await stream.told()).expire_time.ToDatetime(UTC) == expire_time
        stream.call.cancel()
        clock.advance(1)
        expired = await resume(server, before, before.progress[-1].resume_token)
        told = await failure(expired.result())
        assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.ABORTED, "UPLOAD_EXPIRED", "restart")
        assert "7 days" in told.message


@pytest.mark.parametrize("resumable", [True, False])
async def test_streams_stop_after_seven_days(tmp_path: Path, *, resumable: bool) -> None:
    """A Put that goes on for longer is told so at its next message, be it the last, and nothing is stored."""
    clock = FakeClock()
    async with serving(tmp_path, clock) as server:
        await register(server, TENANT)
        call: Any = server.storage.Put(timeout=60)
        await call.write(header(TENANT, "key", resumable=resumable))
        for offset in range(0, len(DATA), MIB):
            await call.write(chunk(offset, DATA[offset : offset + MIB]))
        await until(lambda: server.unfinished() != [])
        clock.advance(7 * DAY)
        await call.write(chunk(len(DATA), b"more") if resumable else finish(len(DATA)))
        told = await failure(_end_of(call))
        assert told.reason == "UPLOAD_EXPIRED"
        assert (await failure(get(server, TENANT, "key"))).reason == "OBJECT_NOT_FOUND"


async def _end_of(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


# --- The day after ----------------------------------------------------------------------------------------------------


async def test_a_server_reaps(tmp_path: Path) -> None:
    """What began more than eight days ago goes when a server starts, whatever state its key is in; what did not stays.

    The log says whose it was, but not which object.
    """
    clock = FakeClock()
    async with serving(tmp_path, clock) as server:
        await register(server, TENANT)
        await interrupted(server, TENANT, DATA, PART, key="secret-name")
        clock.advance(8 * DAY + 1)
        young = await interrupted(server, TENANT, DATA, PART)
        before = len(server.unfinished())
        admin = KeyringAdmin(tmp_path / "keyring" / "keyring.json", tmp_path / "keyring" / "root.key", clock)
        [provider_key] = [key.arn for key in admin.list() if key.arn.region == "us-east-1"]
        admin.disable(provider_key)
        with capture_logs() as log:
            async with serving(tmp_path, clock):
                await until(lambda: len(server.unfinished()) == before / 2)
                await until(lambda: "upload_reaped" in str(log))
        [line] = [entry for entry in log if entry["event"] == "upload_reaped"]
        assert line == {
            "event": "upload_reaped",
            "log_level": "info",
            "data_center": DATA_CENTER,
            "tenant_id": TENANT,
            "begun": "2026-01-01T00:00:00+00:00",
        }
        admin.enable(provider_key)
        await resumed(server, young)
        assert (await get(server, TENANT, "key")).data == DATA
        assert server.unfinished() == []


async def test_the_reaper_goes_on(moto: MotoServer, tmp_path: Path) -> None:
    """After a store that did not answer, and again for what came of age since; the server serves on meanwhile."""
    with pytest.MonkeyPatch.context() as patch, aws_place(moto, patch) as (at_moto, bucket):
        async with s3_proxy(moto.endpoint) as proxy:
            beginnings = Beginnings(proxy)
            place = at_moto.model_copy(update={"s3_endpoint": proxy.endpoint})
            proxy.plan("ListMultipartUploads", Answer(403, "AccessDenied"), Answer(403, "AccessDenied"))
            settings: Any = {"deployment_id": "tests", "data_centers": {DATA_CENTER: place}, "reap_interval": 0.01}
            with capture_logs() as log:
                async with serving(tmp_path, **settings) as server:
                    await register(server, TENANT)
                    for _ in range(2):
                        await interrupted(server, TENANT, DATA, PART)
                        [upload_id] = bucket.unfinished()
                        beginnings.backdate(upload_id, datetime.now(UTC) - timedelta(days=9))
                        await until(lambda: not bucket.unfinished())
            failed = [entry for entry in log if entry["event"] == "reap_failed"]
            assert [entry["reason"] for entry in failed] == ["STORE_MISCONFIGURED"] * 2


# --- keystow-service reap ---------------------------------------------------------------------------------------------


def reap(data_dir: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """The command, over one data centre on this machine."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTOW_")}
    environment["KEYSTOW_DATA_DIR"] = str(data_dir)
    environment["KEYSTOW_DATA_CENTERS"] = json.dumps({DATA_CENTER: {"region": "us-east-1"}})
    command = [sys.executable, "-m", "keystow_service", "reap", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


async def test_the_command(tmp_path: Path) -> None:
    """Tells what it would remove, removes it, and leaves what the running server still needs."""
    clock = FakeClock(datetime.now(UTC) - timedelta(days=9))
    async with serving(tmp_path, clock, reap_interval=0) as server:
        await register(server, TENANT)
        await interrupted(server, TENANT, DATA, PART, key="päth/old")
        clock.advance(9 * DAY)
        young = await interrupted(server, TENANT, DATA, PART)
        would = await asyncio.to_thread(reap, tmp_path, "--dry-run", "--json")
        [line] = [json.loads(line) for line in would.stdout.splitlines()]
        assert (line["fate"], line["data_center"], line["tenant_id"]) == ("due", DATA_CENTER, TENANT)
        assert line["key"] == "päth/old"
        assert len(server.unfinished()) == 4
        done = await asyncio.to_thread(reap, tmp_path)
        assert (done.returncode, done.stdout.count("\n")) == (0, 1)
        assert done.stdout.startswith("removed  us  ")
        assert "objects/acme/_p%C3%A4th/_old!" in done.stdout
        assert "us: 1 kept" in done.stderr
        assert len(server.unfinished()) == 2
        await resumed(server, young)


async def test_the_command_without_a_store(tmp_path: Path) -> None:
    """Where there is none it says so, makes none, and fails."""
    done = reap(tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere" in done.stderr
    assert not (tmp_path / "nowhere").exists()
