"""glibc's allocator, told that a process moves megabyte messages all day."""

import ctypes

_MIB = 1 << 20

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3


def tune_allocator() -> bool:
    """Keep freed message buffers in the process instead of returning each one to the kernel; True if it took effect.

    glibc maps and unmaps every large block on its own, and the page faults then cost more than the rest of a transfer:
    with this, streams need a half to a fifth of the CPU. The price is that the process may keep up to 512 MiB that it
    once used, and that the setting is the whole process's: that is why the library never calls this by itself. The
    ``keystow`` command does; a program that mainly moves objects should, once, before it opens a client. On other C
    libraries nothing happens. See mallopt(3).
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - looks the symbol up: only glibc has it
    except (OSError, TypeError, AttributeError):
        return False
    return all(
        libc.mallopt(parameter, value) == 1
        for parameter, value in (
            (_M_MMAP_THRESHOLD, 32 * _MIB),
            (_M_TRIM_THRESHOLD, 512 * _MIB),
            (_M_TOP_PAD, 64 * _MIB),
        )
    )
