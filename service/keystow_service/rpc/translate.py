"""Protobuf ↔ model, and the rules of every request field. Nothing beyond this file sees a request unchecked.

All functions raise RequestInvalidError with one violation per broken rule, unless they say otherwise.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from keystow.v1 import storage_pb2
from keystow_service.envelope.sealing import user_metadata_size
from keystow_service.errors import RequestInvalidError, Violation
from keystow_service.model import (
    MAX_CHUNK_SIZE,
    MAX_CONTENT_TYPE_SIZE,
    MAX_METADATA_SIZE,
    MAX_PAGE_SIZE,
    MAX_SMALL_OBJECT_SIZE,
    Caller,
    ObjectInfo,
    TenantId,
    UploadId,
)
from keystow_service.objects.command import Chunk, Finish, GetCommand, PutCommand, WriteMode
from keystow_service.objects.get import Range, RangeEnd
from keystow_service.objects.names import parse_key
from keystow_service.objects.progress import Progress
from keystow_service.objects.resume import ResumeCommand

_TENANT_ID = re.compile(r"[a-z][a-z0-9-]{2,62}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTENT_TYPE = re.compile(r"[\x20-\x7e]*")
_MAX_VERSION_ID_SIZE = 256
_DEFAULT_PAGE_SIZE = 100
_SHA256_SIZE = 32

_WRITE_MODES = {
    storage_pb2.WRITE_MODE_UNSPECIFIED: WriteMode.CREATE,
    storage_pb2.WRITE_MODE_CREATE: WriteMode.CREATE,
    storage_pb2.WRITE_MODE_OVERWRITE: WriteMode.OVERWRITE,
}


def require(rules: Iterable[tuple[bool, str, str]]) -> None:
    """Each rule: whether it holds, the field it is about, and what the field must be."""
    broken = [Violation(field, rule) for holds, field, rule in rules if not holds]
    if broken:
        raise RequestInvalidError(
            "The request is invalid: " + "; ".join(f"{each.subject} {each.description}" for each in broken) + ".",
            violations=broken,
        )


def tenant_id(text: str) -> TenantId:
    """A tenant's id, well-formed."""
    require([(_TENANT_ID.fullmatch(text) is not None, "tenant_id", "must be 3 to 63 of a-z, 0-9 and '-', first a-z")])
    return TenantId(text)


def version_id(text: str, field: str = "version_id") -> str:
    """A version id, or nothing."""
    require([(len(text) <= _MAX_VERSION_ID_SIZE, field, "must be one that keystow gave out")])
    return text


def put_command(header: storage_pb2.PutHeader, caller: Caller) -> PutCommand:
    """A new upload."""
    mode = _WRITE_MODES.get(header.write_mode)
    require(
        [
            _upload_id_rule(header.upload_id),
            (
                len(header.content_type) <= MAX_CONTENT_TYPE_SIZE
                and _CONTENT_TYPE.fullmatch(header.content_type) is not None,
                "content_type",
                f"must be at most {MAX_CONTENT_TYPE_SIZE} printable ASCII characters",
            ),
            (
                user_metadata_size(header.metadata) <= MAX_METADATA_SIZE,
                "metadata",
                f"must be at most {MAX_METADATA_SIZE} bytes, encoded",
            ),
            ("" not in header.metadata, "metadata", "must not have an empty name"),
            (header.size >= 0, "size", "must not be negative"),
            (mode is not None, "write_mode", "must be a known WriteMode"),
            (not (header.if_version_id and header.write_mode), "if_version_id", "excludes write_mode"),
            (not (header.verify_sha256 and header.resumable), "verify_sha256", "excludes resumable"),
        ]
    )
    return PutCommand(
        caller=caller,
        tenant_id=tenant_id(header.tenant_id),
        key=parse_key(header.key),
        upload_id=UploadId(header.upload_id),
        content_type=header.content_type,
        metadata=dict(header.metadata),
        size=header.size if header.HasField("size") else None,
        mode=WriteMode.IF_VERSION if header.if_version_id else mode or WriteMode.CREATE,
        if_version_id=version_id(header.if_version_id, "if_version_id"),
        sha256=header.verify_sha256,
    )


def resume_command(header: storage_pb2.PutHeader, caller: Caller) -> ResumeCommand:
    """An upload to go on with."""
    excluded = (
        header.content_type,
        header.metadata,
        header.HasField("size"),
        header.write_mode,
        header.if_version_id,
        header.verify_sha256,
    )
    rule = (not any(excluded), "resume_token", "excludes all fields but tenant_id, key, upload_id and resumable")
    return _resume_command(header, caller, rule)


def abort_command(request: storage_pb2.AbortPutRequest, caller: Caller) -> ResumeCommand:
    """An upload to discard."""
    rule = (request.resume_token != b"", "resume_token", "must be set: the last one that keystow gave for the upload")
    return _resume_command(request, caller, rule)


def _resume_command(
    message: storage_pb2.PutHeader | storage_pb2.AbortPutRequest, caller: Caller, rule: tuple[bool, str, str]
) -> ResumeCommand:
    require([_upload_id_rule(message.upload_id), rule])
    return ResumeCommand(
        caller=caller,
        tenant_id=tenant_id(message.tenant_id),
        key=parse_key(message.key),
        upload_id=UploadId(message.upload_id),
        token=message.resume_token,
    )


def _upload_id_rule(upload_id: str) -> tuple[bool, str, str]:
    return _UUID.fullmatch(upload_id) is not None, "upload_id", "must be a lower-case UUID"


def put_small(request: storage_pb2.PutSmallRequest, caller: Caller) -> tuple[PutCommand, Chunk]:
    """The command and its only chunk. Raises as put_command."""
    header = request.header
    require(
        [
            (request.HasField("header"), "header", "must be set"),
            (not header.HasField("size"), "header.size", "must not be set in PutSmall"),
            (not header.resume_token, "header.resume_token", "must not be set in PutSmall"),
            (not header.resumable, "header.resumable", "must not be set in PutSmall"),
            (
                len(request.data) <= MAX_SMALL_OBJECT_SIZE,
                "data",
                f"must be at most {MAX_SMALL_OBJECT_SIZE} bytes; send larger objects with Put",
            ),
        ]
    )
    crc32c = request.crc32c if request.HasField("crc32c") else None
    command = put_command(header, caller)
    return replace(command, size=len(request.data), at_once=True), Chunk(0, request.data, crc32c)


def chunk(message: storage_pb2.Chunk) -> Chunk:
    """One chunk of a Put."""
    data = message.data
    require([(len(data) <= MAX_CHUNK_SIZE, "chunk.data", f"must be at most {MAX_CHUNK_SIZE} bytes")])
    return Chunk(message.offset, data, message.crc32c if message.HasField("crc32c") else None)


def finish(message: storage_pb2.PutFinish, *, sha256: bool) -> Finish:
    """The end of a Put; ``sha256`` is whether its header asked for one."""
    require(
        [
            (message.size >= 0, "finish.size", "must not be negative"),
            (
                len(message.sha256) == (_SHA256_SIZE if sha256 else 0),
                "finish.sha256",
                "must be 32 bytes with PutHeader.verify_sha256, and empty without",
            ),
        ]
    )
    return Finish(message.size, message.crc32c if message.HasField("crc32c") else None, message.sha256)


def get_command(request: storage_pb2.GetRequest) -> GetCommand:
    """What to read."""
    require([(request.length >= 0, "length", "must not be negative; leave it out to read to the end")])
    return GetCommand(
        tenant_id=tenant_id(request.tenant_id),
        key=parse_key(request.key),
        version_id=version_id(request.version_id),
        offset=request.offset,
        length=request.length if request.HasField("length") else None,
    )


def put_progress(progress: Progress) -> storage_pb2.PutResponse:
    """How far a Put has come."""
    return storage_pb2.PutResponse(
        progress=storage_pb2.UploadProgress(
            persisted_size=progress.persisted_size,
            resume_token=progress.resume_token,
            expire_time=timestamp(progress.expire_time),
        )
    )


def page_size(number: int) -> int:
    """How many entries a page has."""
    require([(0 <= number <= MAX_PAGE_SIZE, "page_size", f"must be 0 to {MAX_PAGE_SIZE}")])
    return number or _DEFAULT_PAGE_SIZE


def get_response(piece: Range | Chunk | RangeEnd) -> storage_pb2.GetResponse:
    """One message of a Get."""
    match piece:
        case Range():
            header = storage_pb2.GetHeader(object=object_info(piece.object), offset=piece.offset, length=piece.length)
            return storage_pb2.GetResponse(header=header)
        case Chunk():
            data = storage_pb2.Chunk(offset=piece.offset, data=piece.data, crc32c=piece.crc32c)
            return storage_pb2.GetResponse(chunk=data)
        case RangeEnd():
            return storage_pb2.GetResponse(finish=storage_pb2.GetFinish(crc32c=piece.crc32c))


def object_info(info: ObjectInfo) -> storage_pb2.ObjectInfo:
    """An object for the caller."""
    return storage_pb2.ObjectInfo(
        tenant_id=info.tenant_id,
        key=info.key,
        version_id=info.version_id,
        size=info.size,
        stored_size=info.stored_size,
        crc32c=info.crc32c,
        sha256=info.sha256 or b"",
        content_type=info.content_type,
        metadata=info.metadata,
        create_time=timestamp(info.create_time),
        kms_key_arn=info.kms_key_arn,
    )


def timestamp(time: datetime) -> Timestamp:
    """A protobuf timestamp."""
    message = Timestamp()
    message.FromDatetime(time)
    return message
