"""keystow put --resume: an upload that outlives its process.

What is needed to go on is kept in $XDG_STATE_HOME/keystow/uploads, by default ~/.local/state, one file for each source
and object. Not beside the source: that may be on a file system that cannot be written to, such as a snapshot, and
put -r would store it with the rest.
"""

import asyncio
import os
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from keystow_client.cli.addresses import ObjectAddress
from keystow_client.cli.output import human_size
from keystow_client.cli.session import Session
from keystow_client.cli.state import StateError, locked, read_state, remove_state, write_state
from keystow_client.errors import AlreadyExistsError, KeystowError, SourceChangedError
from keystow_client.models import ObjectInfo, UploadProgress
from keystow_client.sources import FileIdentity
from keystow_client.threads import OwnThread
from keystow_client.upload import ProgressListener

# The key has an object now that the upload cannot or must not replace.
_SETTLED = ("VERSION_MISMATCH", "UPLOAD_REPLACED")
_FIELDS = frozenset({"source", "object", "identity", "options", "progress"})


class Put(Protocol):
    """The Put that may be continued, but for what that takes."""

    def __call__(
        self, *, resumable: bool, resume_from: UploadProgress | None, on_upload_progress: ProgressListener
    ) -> Awaitable[ObjectInfo]: ...


class UnfinishedUpload:
    """What the state directory knows of an upload. All methods block."""

    def __init__(self, source: Path, address: ObjectAddress, options: Mapping[str, Any]) -> None:
        """``options`` are those that a continuation cannot change any more."""
        self.address = address
        self.progress: UploadProgress | None = None
        self._source = os.path.abspath(source)  # noqa: PTH100 - links in it are not followed: the file may be replaced
        self._options = dict(options)
        self._identity: Mapping[str, int] = {}
        self._kept: UploadProgress | None = None
        self._lock: FileIO | None = None
        name = sha256(f"{address}\0{self._source}".encode(errors="surrogateescape")).hexdigest()
        self.path = _state_home() / "keystow" / "uploads" / f"{name}.json"

    def load(self) -> None:
        """Find out what another process has left, and keep others away.

        Raises StateError if another one is at work, or the source or the options have changed.
        """
        self._identity = _identity(Path(self._source).stat())
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = locked(self._lock_path.open("ab", buffering=0), Path(self._source))
        state = read_state(self.path, _FIELDS)
        if state is None:
            return
        if state["identity"] != self._identity:
            raise StateError(
                f"{self._source} has changed since its upload to {self.address} began, which cannot be continued: "
                f"remove {self.path} to upload it as it is now"
            )
        if state["options"] != self._options:
            raise StateError(
                f"the upload of {self._source} to {self.address} began with other options: repeat them, or remove "
                f"{self.path} to begin anew"
            )
        self.progress = self._kept = _progress(state["progress"])

    def keep(self) -> None:
        """Write the newest progress down, if it is not yet."""
        progress = self.progress
        if progress is None or progress == self._kept:
            return
        state = {"source": self._source, "object": str(self.address), "identity": self._identity}
        write_state(self.path, {**state, "options": self._options, "progress": _plain(progress)})
        self._kept = progress

    def forget(self) -> None:
        """There is nothing to go on with."""
        remove_state(self.path)

    def close(self) -> None:
        """Let other processes go on, if there is anything."""
        if self._lock is not None:
            if not self.path.exists():
                self._lock_path.unlink(missing_ok=True)
            self._lock.close()

    @property
    def _lock_path(self) -> Path:
        return self.path.with_suffix(".lock")


async def put_resumably(session: Session, put: Put, upload: UnfinishedUpload, thread: OwnThread) -> ObjectInfo:
    """Go on with what another process has left, or begin; leave what the next one needs.

    Raises what the Put raises. An upload whose object cannot be stored any more is discarded, here and at the service;
    one whose source has changed is not, for that may come back.
    """
    try:
        await thread.run(upload.load)
        if upload.progress is not None:
            session.output.note(f"going on after {human_size(upload.progress.persisted_size)}")
        try:
            info = await put(
                resumable=True,
                resume_from=upload.progress,
                on_upload_progress=partial(_hear, session, upload, thread),
            )
        except BaseException as error:
            await asyncio.shield(_leave(session, upload, thread, error))
            raise
        await thread.run(upload.forget)
    finally:
        await asyncio.shield(thread.run(upload.close))
    return info


def _hear(session: Session, upload: UnfinishedUpload, thread: OwnThread, progress: UploadProgress) -> None:
    upload.progress = progress
    thread.post(partial(_keep, session, upload))


def _keep(session: Session, upload: UnfinishedUpload) -> None:
    try:
        upload.keep()
    except OSError as error:
        session.output.note(f"cannot write {upload.path}: {error.strerror}; --resume may have to begin anew")


async def _leave(session: Session, upload: UnfinishedUpload, thread: OwnThread, error: BaseException) -> None:
    """What the next process needs, or nothing if there cannot be one."""
    if isinstance(error, AlreadyExistsError) or (isinstance(error, KeystowError) and error.reason in _SETTLED):
        if upload.progress is not None:
            with suppress(KeystowError):
                await session.client.abort_put(upload.address.tenant, upload.address.key, upload.progress)
        await thread.run(upload.forget)
        return
    _advise(error, upload.path)
    await thread.run(partial(_keep, session, upload))


def _advise(error: BaseException, path: Path) -> None:
    """Say what to do where repeating the command would never help."""
    match error:
        case SourceChangedError():
            error.add_note(f"remove {path} to begin anew")
        case KeystowError(reason="UPLOAD_SUPERSEDED"):
            error.add_note(f"if no other process goes on with this upload any more, remove {path} to begin anew")
        case KeystowError(reason="RESUME_TOKEN_INVALID"):
            error.add_note(
                "the upload may have begun at another server, or as another caller: go on there, or "
                f"remove {path} to begin anew here"
            )


def _state_home() -> Path:
    """By the XDG base directory specification, which has relative paths ignored."""
    chosen = Path(os.environ.get("XDG_STATE_HOME", ""))
    return chosen if chosen.is_absolute() else Path.home() / ".local" / "state"


def _identity(status: os.stat_result) -> Mapping[str, int]:
    """Without the device, whose number may be another after the machine was started again."""
    identity = asdict(FileIdentity.of(status))
    del identity["device"]
    return identity


def _plain(progress: UploadProgress) -> Mapping[str, Any]:
    return {
        **asdict(progress),
        "resume_token": b64encode(progress.resume_token).decode(),
        "expire_time": progress.expire_time and progress.expire_time.isoformat(),
    }


def _progress(plain: Mapping[str, Any]) -> UploadProgress:
    expire_time = plain["expire_time"]
    return UploadProgress(
        upload_id=plain["upload_id"],
        persisted_size=plain["persisted_size"],
        resume_token=b64decode(plain["resume_token"]),
        expire_time=expire_time and datetime.fromisoformat(expire_time),
        crc32c=plain["crc32c"],
    )
