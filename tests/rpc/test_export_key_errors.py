"""An export while KMS says once that a wrapped data key is none of its own, though it has unwrapped that before."""

import io
import zipfile
from pathlib import Path

import grpc
import pytest

from keystow.v1.storage_pb2 import ARCHIVE_FORMAT_ZIP, ERROR_POLICY_CONTINUE
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from rpc.exports import Export, export, request
from rpc.wire import content, put, told_by
from servers.in_process import register
from servers.kms.faults import Fault
from servers.kms.server import faithful_kms
from servers.on_kms import serving_on_kms

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "acme"


async def test_a_zip_lists_no_member_that_it_does_not_have(tmp_path: Path) -> None:
    """Whichever request it is: the archive is whole, with the object or without it, or the export says why not."""
    asked = request(TENANT, format=ARCHIVE_FORMAT_ZIP, on_error=ERROR_POLICY_CONTINUE)
    async with faithful_kms("us-east-1") as kms, serving_on_kms(kms, tmp_path, lease_bound=0) as server:
        key = kms.create_key(TENANT)
        await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
        for name in ("first", "second"):
            await put(server, TENANT, name, content(1000))
        before = len(kms.requests)
        await export(server, asked)
        requests = len(kms.requests) - before
        ends = []
        for refused in range(requests):
            kms.faults.fail_next(Fault(), refused)
            kms.faults.fail_next(Fault("InvalidCiphertextException"))
            archive = Export()
            try:
                await export(server, asked, into=archive)
            except grpc.RpcError as error:
                ends.append(told_by(error).reason)
            else:
                ends.append("")
                assert archive.summary
                assert (
                    len(readable_members(bytes(archive.data))) == 2 - archive.summary.failed_count + 1
                )  # the manifest
            kms.faults.end()
        assert set(ends) <= {"", "WRAPPED_KEY_INVALID"}
        assert "" in ends


def readable_members(data: bytes) -> list[str]:
    """Of an archive whose members are where its directory says."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return archive.namelist()
