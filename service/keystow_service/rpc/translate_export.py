"""Protobuf ↔ model of Export, with the rules of its request. Raises as translate.py."""

from keystow.v1 import storage_pb2
from keystow_service.model import MAX_EXPORT_KEYS, Caller
from keystow_service.objects.command import Chunk
from keystow_service.objects.export.command import ArchiveFormat, ErrorPolicy, ExportCommand, Keys, Prefix
from keystow_service.objects.export.pieces import Checkpoint, Entry, Exported, Failed, Summary
from keystow_service.objects.names import list_prefix, parse_key
from keystow_service.rpc import translate
from keystow_service.rpc.call import Call
from keystow_service.rpc.status import to_status

_FORMATS = {
    storage_pb2.ARCHIVE_FORMAT_UNSPECIFIED: ArchiveFormat.TAR,
    storage_pb2.ARCHIVE_FORMAT_TAR: ArchiveFormat.TAR,
    storage_pb2.ARCHIVE_FORMAT_ZIP: ArchiveFormat.ZIP,
}
_ERROR_POLICIES = {
    storage_pb2.ERROR_POLICY_UNSPECIFIED: ErrorPolicy.STOP,
    storage_pb2.ERROR_POLICY_STOP: ErrorPolicy.STOP,
    storage_pb2.ERROR_POLICY_CONTINUE: ErrorPolicy.CONTINUE,
}


def command(request: storage_pb2.ExportRequest, caller: Caller) -> ExportCommand:
    """What to export."""
    tenant_id = translate.tenant_id(request.tenant_id)
    selection = request.WhichOneof("selection")
    keys = request.keys.keys
    archive_format, on_error = _FORMATS.get(request.format), _ERROR_POLICIES.get(request.on_error)
    translate.require(
        [
            (selection is not None, "selection", "must be prefix or keys; an empty prefix selects every object"),
            (selection != "keys" or bool(keys), "keys", "must have at least one key"),
            (len(keys) <= MAX_EXPORT_KEYS, "keys", f"must have at most {MAX_EXPORT_KEYS} keys"),
            (len(keys) > MAX_EXPORT_KEYS or len(set(keys)) == len(keys), "keys", "must not have a key twice"),
            (archive_format is not None, "format", "must be a known ArchiveFormat"),
            (on_error is not None, "on_error", "must be a known ErrorPolicy"),
            (
                archive_format is not ArchiveFormat.ZIP or not request.checkpoint_token,
                "checkpoint_token",
                "must be empty for ARCHIVE_FORMAT_ZIP, which has no checkpoints",
            ),
        ]
    )
    if selection == "prefix":
        list_prefix(tenant_id, request.prefix)
    return ExportCommand(
        caller=caller,
        tenant_id=tenant_id,
        selection=Keys(tuple(parse_key(key, field="keys") for key in keys)) if keys else Prefix(request.prefix),
        format=archive_format or ArchiveFormat.TAR,
        on_error=on_error or ErrorPolicy.STOP,
        checkpoint_token=request.checkpoint_token,
    )


def response(piece: Chunk | Entry | Checkpoint | Summary, call: Call) -> storage_pb2.ExportResponse:
    """One message of an Export."""
    match piece:
        case Chunk():
            data = storage_pb2.Chunk(offset=piece.offset, data=piece.data, crc32c=piece.crc32c)
            return storage_pb2.ExportResponse(chunk=data)
        case Exported():
            entry = storage_pb2.ExportEntry(object=translate.object_info(piece.info), member_name=piece.member_name)
            entry.status.SetInParent()  # OK
            return storage_pb2.ExportResponse(entry=entry)
        case Failed():
            missing = storage_pb2.ObjectInfo(tenant_id=piece.tenant_id, key=piece.key)
            about = {**call.about, "objectKey": piece.key}
            status = to_status(piece.error, request_id=call.request_id, about=about)
            return storage_pb2.ExportResponse(entry=storage_pb2.ExportEntry(object=missing, status=status))
        case Checkpoint():
            checkpoint = storage_pb2.ExportCheckpoint(checkpoint_token=piece.token, archive_size=piece.archive_size)
            return storage_pb2.ExportResponse(checkpoint=checkpoint)
        case Summary():
            position = piece.position
            return storage_pb2.ExportResponse(
                summary=storage_pb2.ExportSummary(
                    object_count=position.object_count,
                    failed_count=position.failed_count,
                    total_size=position.total_size,
                    archive_size=piece.archive_size,
                    complete=position.failed_count == 0,
                    crc32c=piece.crc32c,
                )
            )
