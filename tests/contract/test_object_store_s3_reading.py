"""How the S3 store reads, lists and deletes when S3 falters, and which of our errors S3's answers become."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote

import pytest

from contract.s3_place import PREFIX, S3Place, s3_place
from contract.store_place import NAME, content, store
from keystow_service.adapters.s3 import open_s3
from keystow_service.errors import (
    InternalError,
    KeystowError,
    ObjectArchivedError,
    ObjectChangedError,
    ObjectNotFoundError,
    ProviderCredentialsError,
    StoreMisconfiguredError,
    StoreThrottledError,
    StoreUnavailableError,
)
from keystow_service.ports import Absent, ConditionFailed
from servers.moto import MotoServer
from servers.s3_proxy import Answer, Cut, Fault, Raw, Reset

_DATA = content(3_000_000)


@pytest.fixture
async def place(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Place]:
    """An empty bucket."""
    async with s3_place(moto, monkeypatch) as made:
        yield made


# --- Bodies that break off --------------------------------------------------------------------------------------------


async def test_cut_body_is_continued(place: S3Place) -> None:
    """A body that breaks off is continued where it ended, tied to the content it began with, and the read is whole."""
    stored = await store(place, NAME, _DATA)
    place.proxy.plan("GetObject", Cut(1_000_000), Cut(500_000))
    read = await place.store.read(NAME, 100, 2_500_000)
    assert read.data == _DATA[100:2_500_100]
    first, second, third = [request.headers for request in place.proxy.requests if request.operation == "GetObject"]
    assert "if-match" not in first
    assert second["if-match"] == third["if-match"] == stored.etag
    starts = [int(headers["range"].removeprefix("bytes=").split("-")[0]) for headers in (first, second, third)]
    assert starts[0] == 100
    assert 100 <= starts[1] <= 1_000_100
    assert starts[1] <= starts[2] <= starts[1] + 500_000


async def test_cut_body_of_a_replaced_object(place: S3Place) -> None:
    """Bytes of two contents are never joined: replaced after a cut, the object has changed."""
    await store(place, NAME, _DATA)
    place.proxy.plan("GetObject", Cut(1_000_000), Answer(412, "PreconditionFailed"))
    with pytest.raises(ObjectChangedError):
        await place.store.read(NAME, 0, len(_DATA))


async def test_body_that_always_breaks_off(place: S3Place) -> None:
    """A body that never comes to its end makes the store unavailable after a bounded number of attempts."""
    await store(place, NAME, _DATA)
    place.proxy.always("GetObject", Cut(10))
    with pytest.raises(StoreUnavailableError):
        await place.store.read(NAME, 0, len(_DATA))
    assert place.proxy.count("GetObject") == place.options.retries.attempts


async def test_answer_that_breaks_off_after_its_last_byte(place: S3Place) -> None:
    """Where only the end of the answer is lost, the bytes are whole, and nothing is asked again."""
    await store(place, NAME, b"data")
    head = (
        "HTTP/1.1 206 OK\r\nETag: x\r\nLast-Modified: Tue, 01 Jan 2030 00:00:00 GMT\r\nContent-Range: bytes 0-3/4\r\n"
    )
    place.proxy.plan("GetObject", Raw(f"{head}Transfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n".encode()))
    assert (await place.store.read(NAME, 0, 100)).data == b"data"
    assert place.proxy.count("GetObject") == 1


@pytest.mark.parametrize(
    "fault", [Reset(), Reset(forwarded=True), Answer(503, "SlowDown"), Answer(500, "InternalError")]
)
async def test_calls_that_are_sent_again(place: S3Place, fault: Fault) -> None:
    """Reads, lists and deletes are sent again after what passes."""
    stored = await store(place, NAME, b"data")
    for operation in ("GetObject", "ListObjectsV2", "DeleteObject"):
        place.proxy.plan(operation, fault)
    assert (await place.store.read(NAME, 0, 10)).data == b"data"
    assert [found.name for found in await place.store.list("", limit=10)] == [NAME]
    await place.store.delete(NAME, etag=stored.etag)
    assert place.contents() == {}


async def test_archived_object(place: S3Place) -> None:
    """An archived object cannot be read, which is said; it can be described and deleted."""
    place.s3.put_object(Bucket=place.bucket, Key=PREFIX + NAME, Body=b"cold", StorageClass="GLACIER")
    with pytest.raises(ObjectArchivedError):
        await place.store.read(NAME, 0, 1)
    assert (await place.store.head(NAME)).size == 4
    await place.store.delete(NAME)
    assert place.contents() == {}


async def test_object_that_grows_between_range_and_description(place: S3Place) -> None:
    """A range that was past the end of a content that is gone is not answered as the end of another one."""
    await store(place, NAME, _DATA)
    place.proxy.plan("GetObject", Answer(416, "InvalidRange"))
    with pytest.raises(ObjectChangedError):
        await place.store.read(NAME, 10, 10)


async def test_list_that_s3_cuts_short(place: S3Place) -> None:
    """A page of S3 with fewer objects than were asked for, and more to come, is not taken for the last."""
    names = [f"objects/acme/_{number}!" for number in range(5)]
    for name in names:
        place.plant(name, b"x")
    place.proxy.plan("ListObjectsV2", Raw(_truncated_page(PREFIX + names[0])))
    assert [stored.name for stored in await place.store.list("", limit=4)] == names[:4]
    second = place.proxy.requests[-1].target
    assert "max-keys=3" in second
    assert "start-after=" + quote(PREFIX + names[0], safe="") in second


# --- Deletes whose answer is lost -------------------------------------------------------------------------------------


async def test_a_delete_whose_answer_is_lost(place: S3Place) -> None:
    """Sent again, it meets no object any more, which some servers tell as a failed condition: it was our own doing."""
    stored = await store(place, NAME, b"data")
    place.proxy.plan("DeleteObject", Reset(forwarded=True), Answer(412, "PreconditionFailed"))
    await place.store.delete(NAME, etag=stored.etag)
    assert place.contents() == {}


async def test_a_delete_after_which_another_content_stands(place: S3Place) -> None:
    """Where the answer was lost and another content stands by now, nobody knows who removed the old one."""
    stored = await store(place, NAME, b"data")
    gate = place.proxy.hold("DeleteObject")
    place.proxy.plan("DeleteObject", Reset(), Answer(412, "PreconditionFailed"))
    deleting = asyncio.create_task(place.store.delete(NAME, etag=stored.etag))
    await gate.until(1)
    place.plant(NAME, b"another")
    gate.open()
    with pytest.raises(StoreUnavailableError, match="did not say"):
        await deleting
    assert place.contents() == {NAME: b"another"}


async def test_a_delete_that_came_too_late(place: S3Place) -> None:
    """A failed condition that nothing precedes, or only what was certainly not carried out, is just that."""
    stored = await store(place, NAME, b"data")
    refused = Answer(412, "PreconditionFailed")
    for faults in ([refused], [Answer(503, "SlowDown"), refused]):
        place.proxy.plan("DeleteObject", *faults)
        with pytest.raises(ConditionFailed):
            await place.store.delete(NAME, etag=stored.etag)
    assert place.contents() == {NAME: b"data"}


# --- S3's answers as our errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (Answer(503, "SlowDown"), StoreThrottledError),
        (Answer(503, "ServiceUnavailable"), StoreThrottledError),
        (Answer(429, "TooManyRequests"), StoreThrottledError),
        (Answer(500, "InternalError"), StoreUnavailableError),
        (Answer(504, "GatewayTimeout"), StoreUnavailableError),
        (Answer(404, "NoSuchBucket"), StoreMisconfiguredError),
        (Answer(403, "AccessDenied"), StoreMisconfiguredError),
        (Answer(400, "AuthorizationHeaderMalformed"), StoreMisconfiguredError),
        (Answer(501, "NotImplemented"), StoreMisconfiguredError),
        (Answer(400, "KeyTooLongError"), StoreMisconfiguredError),
        (Answer(400, "KMS.DisabledException"), StoreMisconfiguredError),
        (Answer(400, "ExpiredToken"), ProviderCredentialsError),
        (Answer(403, "InvalidAccessKeyId"), ProviderCredentialsError),
        (Answer(403, "SignatureDoesNotMatch"), ProviderCredentialsError),
        (Answer(418, "SomethingNew"), InternalError),
    ],
)
async def test_error_codes(place: S3Place, answer: Answer, raised: type[KeystowError]) -> None:
    """Each code of S3 becomes its error, with S3's request id and without S3's text; a new one is internal."""
    for operation in ("GetObject", "ListObjectsV2", "PutObject", "CreateMultipartUpload"):
        place.proxy.always(operation, answer)
    with pytest.raises(raised) as caught:
        await place.store.read(NAME, 0, 1)
    with pytest.raises(raised):
        await place.store.head(NAME)
    with pytest.raises(raised):
        await place.store.list("", limit=1)
    with pytest.raises(raised):
        await place.store.begin(NAME, Absent()).write(bytearray(1))
    assert caught.value.details == {"aws_request_id": "REQUEST1"}
    told = "".join(traceback.format_exception(caught.value))
    assert "foreign text" not in told
    assert answer.code not in caught.value.message


async def test_missing_bucket(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is not there is never an object that is not there."""
    async with s3_place(moto, monkeypatch, bucket="keystow-nowhere") as place:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: place.store.head(NAME),
            lambda: place.store.read(NAME, 0, 1),
            lambda: place.store.list("", limit=1),
            lambda: place.store.delete(NAME),
            lambda: place.store.begin(NAME, Absent()).commit(bytearray(b"x")),
            lambda: place.store.begin(NAME, Absent()).write(bytearray(b"x")),
        ]
        for call in calls:
            with pytest.raises(StoreMisconfiguredError):
                await call()


async def test_missing_credentials(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials of its own the service says that it has none, and sends nothing."""
    async with s3_place(moto, monkeypatch) as place:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, "nowhere")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        async with open_s3(place.options) as unarmed:
            with pytest.raises(ProviderCredentialsError):
                await unarmed.head(NAME)
            with pytest.raises(ProviderCredentialsError):
                await unarmed.begin(NAME, Absent()).commit(bytearray(b"x"))
        assert place.proxy.requests == []


async def test_server_that_is_down(place: S3Place) -> None:
    """Where no connection is made, the store is unavailable."""
    await place.proxy.stop()
    with pytest.raises(StoreUnavailableError) as caught:
        await place.store.head(NAME)
    assert caught.value.details == {}


async def test_server_that_talks_nonsense(place: S3Place) -> None:
    """An answer that is no XML makes the store unavailable, and a range that was not asked for is an internal error."""
    place.proxy.always("ListObjectsV2", Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
    with pytest.raises(StoreUnavailableError):
        await place.store.list("", limit=1)
    place.proxy.always("GetObject", Raw(b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 5\r\n\r\nhello"))
    with pytest.raises(InternalError):
        await place.store.read(NAME, 0, 1)


async def test_object_not_found_is_told_without_s3(place: S3Place) -> None:
    """A missing object is told in our words alone."""
    with pytest.raises(ObjectNotFoundError) as caught:
        await place.store.head(NAME)
    assert "NoSuchKey" not in "".join(traceback.format_exception(caught.value))


def _truncated_page(key: str) -> bytes:
    """An answer to ListObjectsV2 with one object, and more to come."""
    body = (
        f"<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>{key}</Key><ETag>x</ETag><Size>1</Size>"
        "<LastModified>2030-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
