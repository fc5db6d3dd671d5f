"""Blocking file work in threads of the store's own, with the disk's failures told in our words."""

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from keystow_service.adapters.posix_files import FileLockTimeoutError
from keystow_service.errors import KeystowError, StoreFullError, StoreMisconfiguredError, StoreUnavailableError

T = TypeVar("T")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BARRED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT})


class Threads:
    """Runs work that blocks. A cancelled caller does not stop work that has begun."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """The work's outcome, OSError as Store… errors."""
        return asyncio.get_running_loop().run_in_executor(self._executor, _told, work)


def store_error(error: OSError) -> KeystowError:
    """What the disk's refusal means to callers and operators."""
    name = errno.errorcode.get(error.errno or 0, "unknown")
    if error.errno in _FULL:
        return StoreFullError("The local store's disk or quota is full. Make room; what is stored is intact.")
    if error.errno in _BARRED:
        return StoreMisconfiguredError(
            f"The service cannot use the local store's directory ({name}). See its owner and its mount."
        )
    return StoreUnavailableError(
        f"The local store's disk failed ({name}). See the machine's kernel log and its mounts."
    )


def _told(work: Callable[[], T]) -> T:
    try:
        return work()
    except OSError as error:
        failure = store_error(error)
    except FileLockTimeoutError:
        failure = StoreUnavailableError(
            "Another process holds a lock of the local store and does not let go. See whether it is stopped."
        )
    raise failure
