"""What the S3 store puts on the wire: checksums, signatures, conditions, and each body once."""

import base64
from collections.abc import AsyncIterator, Mapping
from xml.etree import ElementTree as ET

import google_crc32c
import pytest

from contract.s3_place import S3Place, s3_place
from contract.store_place import NAME, begun, content, store
from keystow_service.adapters.s3.client import S3Options, client_config
from keystow_service.ports import Absent, Matches
from servers.moto import MotoServer

_CHECKSUM = "x-amz-checksum-crc32c"


@pytest.fixture
async def place(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Place]:
    """An empty bucket."""
    async with s3_place(moto, monkeypatch) as made:
        yield made


async def test_checksums(place: S3Place) -> None:
    """Each body goes with its CRC32C, and Complete names that of each part, so that S3 can refuse damaged bytes."""
    data = content(place.part_size + 300_000)
    await store(place, NAME, data)
    await store(place, "objects/acme/_small!", data[:5000])
    sent = {request.operation: request for request in place.proxy.requests}
    assert sent["CreateMultipartUpload"].headers["x-amz-checksum-algorithm"] == "CRC32C"
    assert sent["PutObject"].headers[_CHECKSUM] == _crc32c(data[:5000])
    wanted = [_crc32c(data[: place.part_size]), _crc32c(data[place.part_size :])]
    assert sorted(headers[_CHECKSUM] for headers in _headers(place, "UploadPart")) == sorted(wanted)
    listed = ET.fromstring(sent["CompleteMultipartUpload"].body)  # noqa: S314 - our own client's
    assert [element.text for element in listed.iter() if element.tag.endswith("ChecksumCRC32C")] == wanted


async def test_no_checksums(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """For servers that refuse checksums, none is sent, nor one of botocore's own."""
    async with s3_place(moto, monkeypatch, checksums=False) as place:
        data = content(place.part_size + 1)
        await store(place, NAME, data)
        await store(place, "objects/acme/_small!", b"x")
        assert place.contents() == {NAME: data, "objects/acme/_small!": b"x"}
        names = {name for request in place.proxy.requests for name in request.headers}
        assert not [name for name in names if "checksum" in name or name == "content-md5"]


async def test_conditions(place: S3Place) -> None:
    """Every commit carries its condition, of one part or more."""
    data = content(place.part_size + 1)
    first = await store(place, NAME, data)
    second = await store(place, NAME, b"x", Matches(first.etag))
    await store(place, NAME, data, Matches(second.etag))
    (put,) = _headers(place, "PutObject")
    created, replaced = _headers(place, "CompleteMultipartUpload")
    assert created["if-none-match"] == "*"
    assert put["if-match"] == first.etag
    assert replaced["if-match"] == second.etag


async def test_abort_after_commit_sends_nothing(place: S3Place) -> None:
    """What is committed needs no cleaning up."""
    upload, last = await begun(place, NAME, Absent(), content(place.part_size + 1))
    await upload.commit(last)
    sent = len(place.proxy.requests)
    await upload.abort()
    assert len(place.proxy.requests) == sent


async def test_bodies_are_not_hashed_for_the_signature(place: S3Place) -> None:
    """Over loopback, as over TLS, the signature leaves the body out; on an open network it does not."""
    await store(place, NAME, b"x")
    (put,) = _headers(place, "PutObject")
    assert put["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    for endpoint, signed in [
        (None, False),
        ("https://store.example", False),
        ("http://[::1]:9000", False),
        ("http://localhost:9000", False),
        ("http://10.0.0.1:9000", True),
        ("http://store.example", True),
    ]:
        config = client_config(S3Options(bucket="bucket", region="eu-central-1", endpoint=endpoint))
        assert vars(config)["s3"]["payload_signing_enabled"] is signed


def _headers(place: S3Place, operation: str) -> list[Mapping[str, str]]:
    return [request.headers for request in place.proxy.requests if request.operation == operation]


def _crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
