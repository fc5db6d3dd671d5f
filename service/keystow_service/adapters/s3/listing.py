"""What S3 lists, page after page: objects, and the multipart uploads that are unfinished.

A page may be empty although more follow. A listing that never comes to an end is a failure, not a reason to go on for
ever; and its end is what S3 says, never the first page without entries.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypedDict

from keystow_service.adapters.s3.bucket import Bucket, meaning
from keystow_service.errors import InternalError, KeystowError, StoreUnavailableError
from keystow_service.ports import StoredObject, UnfinishedUpload

if TYPE_CHECKING:  # the stubs are a development dependency
    from types_aiobotocore_s3.type_defs import ListMultipartUploadsOutputTypeDef, ListObjectsV2OutputTypeDef

_MAX_KEYS = 1000  # of one page
_MAX_EMPTY_PAGES = 100  # one after the other
_CLOCK_DIFFERENCE = timedelta(hours=1)


class _ObjectsFrom(TypedDict, total=False):
    StartAfter: str
    ContinuationToken: str


class _UploadsFrom(TypedDict, total=False):
    KeyMarker: str
    UploadIdMarker: str


async def objects(bucket: Bucket, prefix: str, start_after: str, limit: int) -> Sequence[StoredObject]:
    """See ObjectStore.list."""
    found: list[StoredObject] = []
    empty = 0
    place: _ObjectsFrom = {"StartAfter": bucket.key(start_after)} if start_after else {}
    while len(found) < limit:
        page = await _objects_page(bucket, prefix, place, min(limit - len(found), _MAX_KEYS))
        entries = page.get("Contents", [])
        found.extend(
            StoredObject(
                entry["Key"].removeprefix(bucket.prefix),
                entry["ETag"],
                entry["Size"],
                entry["LastModified"].astimezone(UTC),
            )
            for entry in entries
        )
        if not page["IsTruncated"]:
            break
        empty = 0 if entries else empty + 1
        after: _ObjectsFrom = {}
        if entries:
            after = {"StartAfter": entries[-1]["Key"]}
        elif page.get("NextContinuationToken"):
            after = {"ContinuationToken": page["NextContinuationToken"]}
        if not after or after == place or empty > _MAX_EMPTY_PAGES:
            raise endless()
        place = after
    return found


async def uploads(bucket: Bucket, prefix: str) -> AsyncGenerator[UnfinishedUpload, None]:
    """See ObjectStore.unfinished. Their times are only told while S3 and this machine agree what time it is."""
    wanted = bucket.key(prefix)
    empty = 0
    place: _UploadsFrom = {}
    while True:
        page = await _uploads_page(bucket, wanted, place)
        _require_same_time(page)
        entries = page.get("Uploads", [])
        for entry in entries:
            if entry["Key"].startswith(wanted):  # not every server heeds Prefix
                name = entry["Key"].removeprefix(bucket.prefix)
                yield UnfinishedUpload(name, entry["UploadId"], entry["Initiated"].astimezone(UTC))
        if not page["IsTruncated"]:
            return
        empty = 0 if entries else empty + 1
        after: _UploadsFrom = {
            "KeyMarker": page.get("NextKeyMarker", ""),
            "UploadIdMarker": page.get("NextUploadIdMarker", ""),
        }
        if not after["KeyMarker"] or after == place or empty > _MAX_EMPTY_PAGES:
            raise endless()
        place = after


def endless() -> KeystowError:
    """A listing says that more follows, and does not go on."""
    return InternalError("The store's listing does not come to its end: it says that more follows, and does not go on.")


async def _objects_page(bucket: Bucket, prefix: str, place: _ObjectsFrom, limit: int) -> "ListObjectsV2OutputTypeDef":
    with meaning({}):
        return await bucket.repeat(
            lambda: bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.key(prefix), MaxKeys=limit, **place)
        )


async def _uploads_page(bucket: Bucket, wanted: str, place: _UploadsFrom) -> "ListMultipartUploadsOutputTypeDef":
    with meaning({}):
        return await bucket.repeat(
            lambda: bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=wanted, **place)
        )


def _require_same_time(answer: "ListMultipartUploadsOutputTypeDef") -> None:
    """Who takes an upload for old by a clock that is wrong removes one that is being written."""
    try:
        told = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
    except ValueError:
        raise StoreUnavailableError(
            "The store's answers do not tell its time in a Date header, so the age of its uploads is not known."
        ) from None
    if abs(told - datetime.now(UTC)) > _CLOCK_DIFFERENCE:
        raise StoreUnavailableError(
            "The store's clock and this machine's differ by more than an hour, so the age of its uploads is not known. "
            "Set the one that is wrong."
        )
