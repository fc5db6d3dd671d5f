"""What an honest server answers an Export, in an archive format of its own: the client does not look into archives."""

from collections.abc import Iterator, Sequence

import google_crc32c

from keystow.v1 import storage_pb2 as pb

MIB = 1 << 20
CHECKPOINT_OBJECTS = 2  # a checkpoint comes after so many


def archive_of(objects: Sequence[tuple[str, bytes]]) -> bytes:
    """The archive of these keys and contents."""
    return b"".join(_member(key, data) for key, data in objects) + b"<end>"


def export_responses(
    stored: Sequence[tuple[pb.ObjectInfo, bytes]], request: pb.ExportRequest
) -> list[pb.ExportResponse]:
    """The archive of the objects selected, or the rest of it after the token."""
    return list(_responses([(info, data) for info, data in _selected(stored, request)], request))


def _selected(
    stored: Sequence[tuple[pb.ObjectInfo, bytes]], request: pb.ExportRequest
) -> list[tuple[pb.ObjectInfo, bytes]]:
    of_tenant = {info.key: (info, data) for info, data in stored if info.tenant_id == request.tenant_id}
    if request.HasField("keys"):
        return [of_tenant[key] for key in request.keys.keys]
    return [of_tenant[key] for key in sorted(of_tenant) if key.startswith(request.prefix)]


def _responses(objects: list[tuple[pb.ObjectInfo, bytes]], request: pb.ExportRequest) -> Iterator[pb.ExportResponse]:
    done, position = map(int, (request.checkpoint_token or b"0@0").split(b"@"))
    crc32c = 0
    for number, (info, data) in enumerate(objects[done:], done + 1):
        for chunk in _chunks(_member(info.key, data), position):
            position += len(chunk.data)
            crc32c = google_crc32c.extend(crc32c, chunk.data)
            yield pb.ExportResponse(chunk=chunk)
        yield pb.ExportResponse(entry=pb.ExportEntry(object=info, member_name=info.key))
        if number % CHECKPOINT_OBJECTS == 0 and request.format == pb.ARCHIVE_FORMAT_TAR:
            token = b"%d@%d" % (number, position)
            yield pb.ExportResponse(checkpoint=pb.ExportCheckpoint(checkpoint_token=token, archive_size=position))
    for chunk in _chunks(b"<end>", position):
        position += len(chunk.data)
        crc32c = google_crc32c.extend(crc32c, chunk.data)
        yield pb.ExportResponse(chunk=chunk)
    yield pb.ExportResponse(
        summary=pb.ExportSummary(
            object_count=len(objects),
            total_size=sum(len(data) for _, data in objects),
            archive_size=position,
            complete=True,
            crc32c=crc32c,
        )
    )


def _member(key: str, data: bytes) -> bytes:
    return f"<{key} {len(data)}>".encode() + data


def _chunks(data: bytes, position: int) -> Iterator[pb.Chunk]:
    for start in range(0, len(data), MIB):
        piece = data[start : start + MIB]
        yield pb.Chunk(offset=position + start, data=piece, crc32c=google_crc32c.value(piece))
