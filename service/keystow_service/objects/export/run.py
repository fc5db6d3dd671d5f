"""One export under way: the objects in their order, their entries, manifests and checkpoints."""

import os
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass, replace
from typing import TypeAlias

from keystow_service.envelope import checkpoint
from keystow_service.envelope.checkpoint import ExportPosition
from keystow_service.errors import (
    KeystowError,
    ObjectArchivedError,
    ObjectChangedError,
    ObjectFormatUnsupportedError,
    ObjectHeaderInvalidError,
    ObjectNotFoundError,
    ObjectTamperedError,
    ObjectTruncatedError,
    WrappedKeyInvalidError,
)
from keystow_service.keys.held_key import KeyInUse
from keystow_service.model import ObjectInfo, ObjectKey, Tenant
from keystow_service.objects.budget import Reservation
from keystow_service.objects.command import Chunk
from keystow_service.objects.export.archive import ArchiveStream, cut
from keystow_service.objects.export.command import ArchiveFormat, ErrorPolicy, ExportCommand
from keystow_service.objects.export.content import member_pieces
from keystow_service.objects.export.framing import Framing, Member
from keystow_service.objects.export.manifest import Manifest, manifest_name
from keystow_service.objects.export.pieces import Checkpoint, Entry, Exported, Failed
from keystow_service.objects.export.selection import Selected
from keystow_service.objects.export.tar import TarFraming
from keystow_service.objects.export.zip import ZipFraming
from keystow_service.objects.opening import ObjectOpening, OpenObject
from keystow_service.objects.prefetch import prefetch
from keystow_service.objects.segments import FIRST_READ, most_ahead

_OBJECTS_AHEAD = 16
_ATTEMPTS = 3  # at an object that is replaced while it is being read

# What is wrong with one object, and says nothing of the others.
_OF_ONE_OBJECT = (
    ObjectNotFoundError,
    ObjectChangedError,
    ObjectArchivedError,
    ObjectTamperedError,
    ObjectTruncatedError,
    ObjectHeaderInvalidError,
    ObjectFormatUnsupportedError,
    WrappedKeyInvalidError,
)

_Opened: TypeAlias = tuple[Selected, OpenObject | KeystowError]


@dataclass(frozen=True, slots=True)
class ExportPolicy:
    """What holds for every export: a checkpoint comes after so many objects or bytes of content, what is first."""

    checkpoint_objects: int
    checkpoint_bytes: int
    blocks_in_flight: int


def buffers(policy: ExportPolicy) -> int:
    """Bytes that an export can have in memory of the objects it reads."""
    return _OBJECTS_AHEAD * FIRST_READ + most_ahead(None, policy.blocks_in_flight)


class ExportRun:
    """See the module. ``position`` is where it begins, ``in_use`` holds the data key of the token that said so."""

    def __init__(
        self,
        opening: ObjectOpening,
        policy: ExportPolicy,
        tenant: Tenant,
        command: ExportCommand,
        position: ExportPosition,
        in_use: KeyInUse,
        reservation: Reservation,
    ) -> None:
        self.position = position
        self.archive = ArchiveStream(position.archive_size)
        self._opening = opening
        self._policy = policy
        self._tenant = tenant
        self._command = command
        self._in_use = in_use
        self._reservation = reservation
        self._framing: Framing = TarFraming() if command.format is ArchiveFormat.TAR else ZipFraming()
        self._manifest = Manifest()

    async def objects(
        self, selection: AsyncGenerator[Selected, None]
    ) -> AsyncGenerator[Chunk | Entry | Checkpoint, None]:
        """All of the selection, up to its last checkpoint."""
        async with aclosing(prefetch(selection, self._open, depth=_OBJECTS_AHEAD)) as opened:
            async for each in opened:
                async with aclosing(self._object(*each)) as pieces:
                    async for piece in pieces:
                        yield piece
                if self._span_is_full():
                    async with aclosing(self._checkpoint()) as span_end:
                        async for last in span_end:
                            yield last

    async def finish(self) -> AsyncGenerator[Chunk, None]:
        """The last manifest, unless the last checkpoint has just written it, and the end of the archive."""
        if self._manifest or not self.position.manifest_count:
            async with aclosing(self._write_manifest()) as chunks:
                async for chunk in chunks:
                    yield chunk
        async with aclosing(self.archive.chunks(cut(self._framing.finish()), self._hold)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _open(self, each: Selected) -> _Opened:
        try:
            return each, await self._opening(self._tenant, each.key, ahead=FIRST_READ)
        except KeystowError as error:
            return each, error

    async def _object(self, each: Selected, opened: OpenObject | KeystowError) -> AsyncGenerator[Chunk | Entry, None]:
        """One object and its entry."""
        begin = self.archive.size
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if isinstance(opened, KeystowError):
                    raise opened
                self._in_use.held = opened.key
                footer = await opened.footer()
                pieces = member_pieces(
                    opened,
                    footer,
                    each.member_name,
                    self._framing,
                    verify_first=self._command.on_error is ErrorPolicy.CONTINUE,
                    blocks_in_flight=self._policy.blocks_in_flight,
                )
                async with aclosing(self.archive.chunks(pieces, self._hold)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except _OF_ONE_OBJECT as error:
                untouched = self.archive.promised == begin
                if isinstance(error, ObjectChangedError) and untouched and attempt < _ATTEMPTS:
                    _, opened = await self._open(each)
                    continue
                if self._command.on_error is ErrorPolicy.CONTINUE and untouched:
                    yield self._failed(each, error)
                elif isinstance(error, ObjectNotFoundError) and untouched and each.listed:
                    self._advance(each)  # deleted since it was listed: an export holds what stands when its turn comes
                else:
                    raise _naming(error, each.key) from None
            else:
                yield self._exported(each, opened.info(footer))
            return

    def _exported(self, each: Selected, info: ObjectInfo) -> Entry:
        self._manifest.add(info, each.member_name)
        position = self.position
        self._advance(each, object_count=position.object_count + 1, total_size=position.total_size + info.size)
        return Exported(info, each.member_name)

    def _failed(self, each: Selected, error: KeystowError) -> Entry:
        self._manifest.add_failed(each.key, error)
        self._advance(each, failed_count=self.position.failed_count + 1)
        return Failed(self._tenant.tenant_id, each.key, error)

    def _advance(self, each: Selected, **counts: int) -> None:
        self.position = replace(self.position, last_key=each.key, open_lengths=each.open_lengths, **counts)
        self._account()

    def _account(self) -> None:
        """What is remembered of the objects so far, within the process's budget. Raises OverloadedError."""
        self._reservation.grow(buffers(self._policy) + 2 * self._manifest.size + self._framing.held())

    def _span_is_full(self) -> bool:
        return self._command.format is ArchiveFormat.TAR and (
            len(self._manifest) >= self._policy.checkpoint_objects
            or self._manifest.object_bytes >= self._policy.checkpoint_bytes
        )

    async def _checkpoint(self) -> AsyncGenerator[Chunk | Checkpoint, None]:
        """A manifest; and a token, once there is a data key to seal it under."""
        async with aclosing(self._write_manifest()) as chunks:
            async for chunk in chunks:
                yield chunk
        if (key := self._in_use.held) is not None:
            await key.hold()
            position = replace(self.position, archive_size=self.archive.size)
            token = checkpoint.seal(position, self._command.scope(), key.data_key, os.urandom)
            yield Checkpoint(token, self.archive.size)

    async def _write_manifest(self) -> AsyncGenerator[Chunk, None]:
        number = self.position.manifest_count + 1
        content = self._manifest.content()
        member = Member(manifest_name(number), len(content), self._manifest.modified, zlib.crc32(content))
        pieces = cut(self._framing.begin(member), content, self._framing.end(member))
        async with aclosing(self.archive.chunks(pieces, self._hold)) as chunks:
            async for chunk in chunks:
                yield chunk
        self.position = replace(self.position, manifest_count=number)
        self._manifest = Manifest()
        self._account()

    async def _hold(self) -> None:
        if self._in_use.held is not None:
            await self._in_use.held.hold()


def _naming(error: KeystowError, key: ObjectKey) -> KeystowError:
    """The error, about this object. A copy: others may have been told the same one."""
    named = copy(error)
    named.details = {**error.details, "object_key": key}
    return named
