"""What the S3 store says when an upload goes wrong on the way: no success on uncertainty, no blind second try."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from contract.s3_place import PREFIX, S3Place, s3_place
from contract.store_place import NAME, begun, content, parts, store
from keystow_service.adapters.s3 import RetryPolicy
from keystow_service.errors import (
    InternalError,
    KeystowError,
    StoreMisconfiguredError,
    StoreThrottledError,
    StoreUnavailableError,
    UploadExpiredError,
    WriteConflictError,
)
from keystow_service.ports import Absent, ConditionFailed, Matches, OutcomeUnknown
from servers.moto import MotoServer
from servers.s3_proxy import Answer, Fault, Raw, Reset, Unread

_SMALL = content(5000)
_SLOW_DOWN = Answer(503, "SlowDown")


@pytest.fixture
async def place(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Place]:
    """An empty bucket."""
    async with s3_place(moto, monkeypatch) as made:
        yield made


@pytest.fixture
def large(place: S3Place) -> bytes:
    """The content of an object of two parts."""
    return content(place.part_size + 5000)


# --- One part: PutObject ----------------------------------------------------------------------------------------------


async def test_lost_answer_of_a_put(place: S3Place) -> None:
    """A PutObject that S3 carried out, but whose answer is lost, is unknown, and was sent exactly once.

    On a connection that has been used before, where HTTP libraries like to send a PUT again on their own.
    """
    await store(place, "objects/acme/_first!", b"x")
    place.proxy.plan("PutObject", Reset(forwarded=True))
    upload, last = await begun(place, NAME, Absent(), _SMALL)
    with pytest.raises(OutcomeUnknown):
        await upload.commit(last)
    assert place.proxy.count("PutObject") == 2
    assert place.contents()[NAME] == _SMALL
    with pytest.raises(ConditionFailed):
        await upload.commit(last)


@pytest.mark.parametrize(
    "fault", [Reset(), Answer(500, "InternalError"), Answer(503, "ServiceUnavailable"), Answer(502, "x")]
)
async def test_put_that_may_have_been_carried_out(place: S3Place, fault: Fault) -> None:
    """After a reset or a server error nobody knows; it is not sent again unless the caller says so, and then works."""
    place.proxy.plan("PutObject", fault)
    upload, last = await begun(place, NAME, Absent(), _SMALL)
    with pytest.raises(OutcomeUnknown):
        await upload.commit(last)
    assert place.proxy.count("PutObject") == 1
    assert place.contents() == {}
    await upload.commit(last)
    assert place.contents() == {NAME: _SMALL}


async def test_put_that_breaks_off_while_it_is_sent(place: S3Place) -> None:
    """A connection that breaks under the body of a PutObject is no proof that S3 has not got it whole."""
    place.proxy.plan("PutObject", Unread())
    upload, last = await begun(place, NAME, Absent(), content(place.part_size))
    with pytest.raises(OutcomeUnknown):
        await upload.commit(last)
    assert place.proxy.count("PutObject") == 1


@pytest.mark.parametrize(
    "fault",
    [
        _SLOW_DOWN,
        Answer(409, "ConditionalRequestConflict"),
        Answer(400, "BadDigest"),
        Answer(400, "RequestTimeout"),
    ],
)
async def test_put_that_was_certainly_not_carried_out(place: S3Place, fault: Fault) -> None:
    """Where S3 itself says that nothing was done, the PutObject is sent again."""
    place.proxy.plan("PutObject", fault, fault)
    await store(place, NAME, _SMALL)
    assert place.proxy.count("PutObject") == 3
    assert place.contents() == {NAME: _SMALL}


async def test_put_throttled_for_good(place: S3Place) -> None:
    """A PutObject that S3 goes on throttling gives up with S3's own delay, after a bounded number of attempts."""
    place.proxy.always("PutObject", Answer(503, "SlowDown", headers={"Retry-After": "0"}))
    upload, last = await begun(place, NAME, Absent(), _SMALL)
    with pytest.raises(StoreThrottledError) as caught:
        await upload.commit(last)
    assert place.proxy.count("PutObject") == place.options.retries.attempts
    assert caught.value.retry_after == 0
    assert caught.value.details["aws_request_id"] == "REQUEST1"


async def test_put_in_conflict_for_good(place: S3Place) -> None:
    """A PutObject that goes on meeting other writes is a write conflict, not a failed condition."""
    place.proxy.always("PutObject", Answer(409, "ConditionalRequestConflict"))
    upload, last = await begun(place, NAME, Absent(), _SMALL)
    with pytest.raises(WriteConflictError):
        await upload.commit(last)


async def test_put_over_a_deleted_object(place: S3Place) -> None:
    """S3 answers NoSuchKey to If-Match where nothing stands: the condition failed."""
    upload, last = await begun(place, NAME, Matches('"0123"'), _SMALL)
    with pytest.raises(ConditionFailed):
        await upload.commit(last)
    assert place.proxy.requests[-1].headers["if-match"] == '"0123"'


async def test_commit_to_a_server_that_is_down(place: S3Place) -> None:
    """Where no connection is made, nothing was sent: the store is unavailable, and nothing is unknown."""
    await place.proxy.stop()
    upload, last = await begun(place, NAME, Absent(), _SMALL)
    with pytest.raises(StoreUnavailableError):
        await upload.commit(last)


# --- More parts: CompleteMultipartUpload ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Reset(forwarded=True), Reset(), Answer(500, "InternalError"), Answer(200, "InternalError")]
)
async def test_complete_without_a_verdict(place: S3Place, large: bytes, fault: Fault) -> None:
    """A lost answer to Complete, or 200 with an error in its body, is unknown; the next commit sends no part again."""
    place.proxy.plan("CompleteMultipartUpload", fault)
    upload, last = await begun(place, NAME, Absent(), large)
    with pytest.raises(OutcomeUnknown):
        await upload.commit(last)
    assert place.proxy.count("CompleteMultipartUpload") == 1
    assert list(place.contents()) == ([NAME] if fault == Reset(forwarded=True) else [])
    await upload.commit(last)
    assert place.proxy.count("UploadPart") == 2
    assert place.contents() == {NAME: large}


@pytest.mark.parametrize("status", [200, 503])
async def test_complete_throttled(place: S3Place, large: bytes, status: int) -> None:
    """SlowDown, also when it comes with 200, says that nothing was done: Complete is sent again."""
    place.proxy.plan("CompleteMultipartUpload", Answer(status, "SlowDown"))
    await store(place, NAME, large)
    assert place.proxy.count("CompleteMultipartUpload") == 2
    assert place.contents() == {NAME: large}


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (Answer(412, "PreconditionFailed"), ConditionFailed),
        (Answer(404, "NoSuchKey"), ConditionFailed),
        (Answer(409, "ConditionalRequestConflict"), WriteConflictError),
        (Answer(404, "NoSuchUpload"), UploadExpiredError),
        (Answer(404, "NoSuchBucket"), StoreMisconfiguredError),
        (Answer(400, "SomethingNew"), InternalError),
    ],
)
async def test_complete_refused(place: S3Place, large: bytes, fault: Fault, raised: type[Exception]) -> None:
    """What S3 refuses is told by its code and not tried again; the parts go with the abort."""
    place.proxy.always("CompleteMultipartUpload", fault)
    upload, last = await begun(place, NAME, Matches('"0123"'), large)
    with pytest.raises(raised):
        await upload.commit(last)
    assert place.proxy.count("CompleteMultipartUpload") == 1
    assert place.proxy.requests[-1].headers["if-match"] == '"0123"'
    await upload.abort()
    assert place.unfinished() == []


async def test_no_such_upload_after_a_lost_answer(place: S3Place, large: bytes) -> None:
    """NoSuchUpload after a Complete that was never answered may be that one's success: still unknown."""
    place.proxy.plan("CompleteMultipartUpload", Reset(forwarded=True), Answer(404, "NoSuchUpload"))
    upload, last = await begun(place, NAME, Absent(), large)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await upload.commit(last)
    assert place.contents() == {NAME: large}
    await upload.abort()
    assert place.contents() == {NAME: large}


# --- Parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        _SLOW_DOWN,
        Answer(500, "InternalError"),
        Answer(400, "BadDigest"),
        Answer(504, "x"),
        Reset(),
        Reset(forwarded=True),
    ],
)
async def test_part_sent_again(place: S3Place, large: bytes, fault: Fault) -> None:
    """A part that fails in passing is sent again, the same bytes, and the object is whole."""
    place.proxy.plan("UploadPart", fault)
    place.proxy.plan("CreateMultipartUpload", fault)
    await store(place, NAME, large)
    bodies = {
        (request.target.split("partNumber=")[1][0], request.body)
        for request in place.proxy.requests
        if request.operation == "UploadPart"
    }
    assert place.proxy.count("UploadPart") == 3
    assert len(bodies) == 2
    assert place.contents() == {NAME: large}


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (_SLOW_DOWN, StoreThrottledError),
        (Answer(500, "InternalError"), StoreUnavailableError),
        (Reset(), StoreUnavailableError),
        (Answer(404, "NoSuchUpload"), UploadExpiredError),
        (Answer(403, "AccessDenied"), StoreMisconfiguredError),
    ],
)
async def test_part_that_fails_for_good(place: S3Place, large: bytes, fault: Fault, raised: type[KeystowError]) -> None:
    """A part that keeps failing fails its upload, each time it is asked; the abort leaves nothing."""
    place.proxy.always("UploadPart", fault)
    upload, last = await begun(place, NAME, Absent(), large)
    for _ in range(2):
        with pytest.raises(raised):
            await upload.commit(last)
    assert place.proxy.count("CompleteMultipartUpload") == 0
    await upload.abort()
    assert place.unfinished() == []
    assert place.contents() == {}


async def test_last_part_that_fails_can_be_committed_again(place: S3Place, large: bytes) -> None:
    """The caller still has the last part: committing again sends it again, and no other."""
    place.proxy.plan("UploadPart", None, *[Answer(500, "InternalError")] * place.options.retries.attempts)
    upload, last = await begun(place, NAME, Absent(), large)
    await place.proxy.came("UploadPart", 1)
    with pytest.raises(StoreUnavailableError):
        await upload.commit(last)
    await upload.commit(last)
    assert place.proxy.count("UploadPart") == 1 + place.options.retries.attempts + 1
    assert place.contents() == {NAME: large}


async def test_failed_part_stops_the_writer(place: S3Place) -> None:
    """A part that fails for good is told to the writer at the next part, not only at the commit."""
    place.proxy.always("UploadPart", Answer(403, "AccessDenied"))
    upload = place.store.begin(NAME, Absent())

    async def write_on() -> None:
        for part in parts(place, content(place.part_size * 20)):
            await upload.write(part)

    with pytest.raises(StoreMisconfiguredError):
        await write_on()
    await upload.abort()
    assert place.unfinished() == []


async def test_server_that_stalls(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes requests and never answers is given up on; of a commit nobody knows the outcome."""
    impatient = RetryPolicy(attempts=2, first_delay=0.001, attempt=0.2)
    async with s3_place(moto, monkeypatch, retries=impatient) as place:
        for operation in ("PutObject", "GetObject"):
            place.proxy.hold(operation)
        upload, last = await begun(place, NAME, Absent(), _SMALL)
        with pytest.raises(OutcomeUnknown):
            await upload.commit(last)
        with pytest.raises(StoreUnavailableError):
            await place.store.read(NAME, 0, 1)
        assert place.proxy.count("PutObject") <= 1


# --- Abort ------------------------------------------------------------------------------------------------------------


async def test_parts_that_land_after_the_abort(place: S3Place, large: bytes) -> None:
    """An abort after which S3 still knows parts is repeated."""
    place.proxy.plan("AbortMultipartUpload", Raw(b"HTTP/1.1 204 No Content\r\n\r\n"))
    upload, _ = await begun(place, NAME, Absent(), large)
    await place.proxy.came("UploadPart", 1)
    await upload.abort()
    assert place.proxy.count("AbortMultipartUpload") == 2
    assert place.unfinished() == []


async def test_abort_whose_answer_is_lost(place: S3Place, large: bytes) -> None:
    """An abort is repeated when its answer is lost; that the upload is gone by then is what was wanted."""
    place.proxy.plan("AbortMultipartUpload", Reset(forwarded=True))
    upload, _ = await begun(place, NAME, Absent(), large)
    await upload.abort()
    assert place.proxy.count("AbortMultipartUpload") == 2
    assert place.unfinished() == []


async def test_abort_does_not_wait_for_parts(place: S3Place) -> None:
    """An abort ends the parts in flight; that they reach S3 later changes nothing."""
    upload = place.store.begin(NAME, Absent())
    gate = place.proxy.hold("UploadPart")
    await upload.write(bytearray(place.part_size))
    await gate.until(1)
    await upload.abort()
    gate.open()
    await place.proxy.idle()
    assert place.unfinished() == []


async def test_cancelled_while_the_upload_is_created(place: S3Place, large: bytes) -> None:
    """A writer that is cancelled before S3 has answered CreateMultipartUpload leaves nothing once it has aborted."""
    gate = place.proxy.hold("CreateMultipartUpload")
    upload = place.store.begin(NAME, Absent())
    first, _ = parts(place, large)
    writing = asyncio.create_task(upload.write(first))
    await gate.until(1)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    aborting = asyncio.create_task(upload.abort())
    gate.open()
    await aborting
    await place.proxy.idle()
    assert place.proxy.count("CreateMultipartUpload") == 1
    assert place.unfinished() == []


async def test_abort_that_is_out_of_time_leaves_no_task(place: S3Place, large: bytes) -> None:
    """An abort that is itself cancelled, because S3 does not answer, leaves no task behind."""
    before = asyncio.all_tasks()
    place.proxy.hold("CreateMultipartUpload")
    upload = place.store.begin(NAME, Absent())
    first, _ = parts(place, large)
    writing = asyncio.create_task(upload.write(first))
    await place.proxy.came("CreateMultipartUpload", 1)
    writing.cancel()
    await asyncio.wait([writing])
    aborting = asyncio.create_task(upload.abort())
    await asyncio.sleep(0)  # it begins to wait
    aborting.cancel()
    await asyncio.wait([aborting])
    await place.proxy.stop()
    left = asyncio.all_tasks() - before
    if left:
        await asyncio.wait(left)
    assert all(task.cancelled() for task in left)


# --- A commit that is read back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", ["delete", "replace"])
async def test_what_was_committed_is_gone_at_once(place: S3Place, large: bytes, others: str) -> None:
    """What another has deleted or replaced before it could be seen is not told to be stored."""
    first, last = parts(place, large)
    upload = await place.store.begin_resumable(NAME, Absent(), lambda *_: None)
    await upload.write(bytearray(first))
    gate = place.proxy.hold("GetObject")
    committing = asyncio.create_task(upload.commit(bytearray(last)))
    await gate.until(1)
    assert place.contents() == {NAME: large}
    place.s3.delete_object(Bucket=place.bucket, Key=PREFIX + NAME)
    if others == "replace":
        place.s3.put_object(Bucket=place.bucket, Key=PREFIX + NAME, Body=b"newer")
    gate.open()
    with pytest.raises(WriteConflictError):
        await committing
    await upload.stop()


async def test_the_read_back_fails(place: S3Place, large: bytes) -> None:
    """Then nobody knows."""
    first, last = parts(place, large)
    upload = await place.store.begin_resumable(NAME, Absent(), lambda *_: None)
    await upload.write(bytearray(first))
    place.proxy.always("GetObject", Answer(500, "InternalError"))
    with pytest.raises(OutcomeUnknown):
        await upload.commit(bytearray(last))
    await upload.stop()
    assert place.contents() == {NAME: large}
