"""How the S3 store lists when S3's pages are unusual: to the end that S3 names, and never for ever."""

import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote

import pytest

from contract.resumable_uploads import Client, listed
from contract.s3_place import PREFIX, S3Place, s3_place
from contract.store_place import NAME
from keystow_service.envelope.part_chain import PartChain
from keystow_service.errors import InternalError, StoreUnavailableError, UploadSupersededError
from servers.moto import MotoServer
from servers.s3_proxy import Raw

_PAGES = 200  # more than are looked at


@pytest.fixture
async def place(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Place]:
    """An empty bucket."""
    async with s3_place(moto, monkeypatch) as made:
        yield made


def page(kind: str, *elements: str, date: datetime | None = None) -> Raw:
    """An answer of S3."""
    body = f"<{kind}>{''.join(elements)}</{kind}>".encode()
    head = [
        "HTTP/1.1 200 OK",
        f"Date: {format_datetime(date or datetime.now(UTC), usegmt=True)}",
        "Content-Type: application/xml",
        f"Content-Length: {len(body)}",
    ]
    return Raw("\r\n".join([*head, "", ""]).encode() + body)


MORE = "<IsTruncated>true</IsTruncated>"
END = "<IsTruncated>false</IsTruncated>"


def upload(key: str, upload_id: str) -> str:
    """An entry of ListMultipartUploads."""
    initiated = "<Initiated>2026-02-03T04:05:06.000Z</Initiated>"
    return f"<Upload><Key>{key}</Key><UploadId>{upload_id}</UploadId>{initiated}</Upload>"


def part(number: int, etag: str = "x") -> str:
    """An entry of ListParts."""
    return f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><Size>5</Size></Part>"


# --- Objects ----------------------------------------------------------------------------------------------------------


async def test_an_empty_page_is_not_the_last(place: S3Place) -> None:
    """A page without objects, of a bucket full of delete markers, is followed by S3's token to what comes after it."""
    entry = f"<Contents><Key>{PREFIX}{NAME}</Key><ETag>x</ETag><Size>1</Size>"
    entry += "<LastModified>2026-02-03T04:05:06.000Z</LastModified></Contents>"
    token = "<NextContinuationToken>a/b+c</NextContinuationToken>"
    place.proxy.plan("ListObjectsV2", page("ListBucketResult", MORE, token), page("ListBucketResult", END, entry))
    assert [stored.name for stored in await place.store.list("objects/", limit=2)] == [NAME]
    assert "continuation-token=" + quote("a/b+c", safe="") in place.proxy.requests[-1].target


def _ever_new_tokens() -> Iterator[str]:
    return (f"<NextContinuationToken>{number}</NextContinuationToken>" for number in itertools.count())


@pytest.mark.parametrize(
    "tokens",
    [
        _ever_new_tokens,
        lambda: itertools.repeat("<NextContinuationToken>same</NextContinuationToken>"),
        lambda: itertools.repeat(""),
    ],
    ids=["new tokens", "the same token", "no token"],
)
async def test_objects_without_end(place: S3Place, tokens: Callable[[], Iterator[str]]) -> None:
    """A listing that goes on for ever and brings nothing is an error, not the end and not a loop."""
    pages = [page("ListBucketResult", MORE, token) for token in itertools.islice(tokens(), _PAGES)]
    place.proxy.plan("ListObjectsV2", *pages)
    with pytest.raises(InternalError, match="does not come to its end"):
        await place.store.list("objects/", limit=2)


# --- Uploads ----------------------------------------------------------------------------------------------------------


async def test_uploads_page_by_page(place: S3Place) -> None:
    """The second page begins where the first one ended; what is not below the prefix is not ours, whatever S3 says."""
    marker = f"<NextKeyMarker>{PREFIX}{NAME}</NextKeyMarker><NextUploadIdMarker>u+1</NextUploadIdMarker>"
    first = page("ListMultipartUploadsResult", MORE, marker, upload(PREFIX + NAME, "u+1"))
    empty = page("ListMultipartUploadsResult", MORE, marker.replace("u+1", "u+2"))
    strangers = [upload(key, "u3") for key in (NAME, PREFIX + "other", "backups2/objects/x", "a")]
    last = page("ListMultipartUploadsResult", END, *strangers, upload(PREFIX + "objects/z", "u4"))
    place.proxy.plan("ListMultipartUploads", first, empty, last)
    found = await listed(place.store)
    assert [(each.name, each.id) for each in found] == [(NAME, "u+1"), ("objects/z", "u4")]
    assert {each.begun for each in found} == {datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)}
    targets = [request.target for request in place.proxy.requests]
    assert all("prefix=" + quote(PREFIX + "objects/", safe="") in target for target in targets)
    assert "key-marker" not in targets[0]
    for target, upload_id in zip(targets[1:], ["u+1", "u+2"], strict=True):
        assert "key-marker=" + quote(PREFIX + NAME, safe="") in target
        assert "upload-id-marker=" + quote(upload_id, safe="") in target


@pytest.mark.parametrize("markers", ["<NextKeyMarker>{}</NextKeyMarker>", "<NextKeyMarker>a</NextKeyMarker>", ""])
async def test_uploads_without_end(place: S3Place, markers: str) -> None:
    """As with objects."""
    pages = [page("ListMultipartUploadsResult", MORE, markers.format(number)) for number in range(_PAGES)]
    place.proxy.plan("ListMultipartUploads", *pages)
    with pytest.raises(InternalError, match="does not come to its end"):
        await listed(place.store)


@pytest.mark.parametrize("difference", [timedelta(hours=-2), timedelta(hours=2), timedelta(days=4000)])
async def test_clocks_that_differ(place: S3Place, difference: timedelta) -> None:
    """No upload's age is told while S3 and this machine do not agree what time it is."""
    answer = page("ListMultipartUploadsResult", END, upload(PREFIX + NAME, "u"), date=datetime.now(UTC) + difference)
    place.proxy.plan("ListMultipartUploads", answer)
    with pytest.raises(StoreUnavailableError, match="clock"):
        await listed(place.store)


async def test_a_store_that_tells_no_time(place: S3Place) -> None:
    """As little."""
    place.proxy.edit("ListMultipartUploads", lambda answer: re.sub(rb"Date: [^\r]*\r\n", b"", answer))
    with pytest.raises(StoreUnavailableError, match="Date"):
        await listed(place.store)


# --- Parts ------------------------------------------------------------------------------------------------------------


async def test_parts_page_by_page(place: S3Place) -> None:
    """The parts of an upload are compared to the last page, also where a page in between is empty."""
    chain = PartChain().after("x", 5).after("y", 5)
    marker = "<NextPartNumberMarker>1</NextPartNumberMarker>"
    place.proxy.plan(
        "ListParts", page("ListPartsResult", MORE, marker, part(1)), page("ListPartsResult", END, part(2, "y"))
    )
    upload_of_two = await Client(place, 3).resume(place.store, chain, "u")
    await upload_of_two.stop()
    assert "part-number-marker=1" in place.proxy.requests[-1].target


@pytest.mark.parametrize(
    ("entries", "raised"),
    [
        ("", InternalError),
        ("<NextPartNumberMarker>0</NextPartNumberMarker>", InternalError),
        ("<NextPartNumberMarker>{}</NextPartNumberMarker>", UploadSupersededError),  # the parts are not there
        (part(1), UploadSupersededError),  # again and again
    ],
)
async def test_parts_without_end(place: S3Place, entries: str, raised: type[Exception]) -> None:
    """As with objects; at most as many pages are looked at as there should be parts."""
    place.proxy.plan("ListParts", *(page("ListPartsResult", MORE, entries.format(number)) for number in range(1, 20)))
    chain = PartChain()
    for _ in range(10):
        chain = chain.after("x", 5)
    with pytest.raises(raised):
        await Client(place, 2).resume(place.store, chain, "u")
    assert place.proxy.count("ListParts") <= 10


async def test_parts_that_an_abort_does_not_remove(place: S3Place) -> None:
    """An upload whose parts stay after several aborts is not said to be gone."""
    client = Client(place, 2)
    await client.interrupted(place.store, 1)
    place.proxy.always("AbortMultipartUpload", Raw(b"HTTP/1.1 204 No Content\r\n\r\n"))
    with pytest.raises(StoreUnavailableError, match="Abort it again"):
        await place.store.discard(NAME, client.upload_id)
    assert place.proxy.count("AbortMultipartUpload") > 1
