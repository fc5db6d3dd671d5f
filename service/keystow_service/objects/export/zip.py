"""Zip framing: stored members whose sizes and CRC-32 stand before their bytes, and Zip64 where 32 bits do not suffice.

https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (6.3.10). That is the form that readers of streams
understand, too: Java's ZipInputStream refuses stored members whose sizes come after them, and takes 64-bit sizes after
a small member for 32-bit ones (ADR 10 says which libraries were tried).
"""

import struct
from datetime import datetime

from keystow_service.errors import RequestInvalidError, Violation
from keystow_service.objects.export.framing import MEMBER_MODE, Member

MAX_MEMBERS = 65_535

_UTF_8 = 1 << 11  # general purpose bit 11: the name is UTF-8
_STORED = 0
_VERSION, _VERSION_ZIP64 = 20, 45
_UNIX = 3
_REGULAR_FILE = 0o100000
_MAX_16, _MAX_32 = (1 << 16) - 1, (1 << 32) - 1
_MAX_TIMESTAMP = (1 << 31) - 1
_FIRST_YEAR, _LAST_YEAR = 1980, 2107

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sBBHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END_64 = struct.Struct("<4sQBBHIIQQQQ")
_END_64_LOCATOR = struct.Struct("<4sIQI")
_TIME = struct.Struct("<HHBi")  # extra field "UT": the modification time in UTC


class ZipFraming:
    """See framing.py. Remembers the central directory, about 100 bytes a member."""

    needs_crc32 = True

    def __init__(self, max_members: int = MAX_MEMBERS) -> None:
        self._max_members = max_members
        self._directory = bytearray()
        self._members = 0
        self._offset = 0

    def begin(self, member: Member) -> bytes:
        """The member's local header. Raises RequestInvalidError for a member too many."""
        if self._members == self._max_members:
            raise too_many(self._max_members)
        name = member.name.encode()
        stamp = _time_extra(member.modified)
        large = member.size >= _MAX_32
        size = _MAX_32 if large else member.size
        version = _VERSION_ZIP64 if large else _VERSION
        extra = (_zip64_extra(member.size, member.size) if large else b"") + stamp
        common = (_UTF_8, _STORED, *_dos_time(member.modified), member.crc32, size, size, len(name))
        local = _LOCAL.pack(b"PK\3\4", version, *common, len(extra)) + name + extra
        self._list(member, name, common, stamp, large=large)
        self._members += 1
        self._offset += len(local) + member.size
        return local

    def _list(self, member: Member, name: bytes, common: tuple[int, ...], stamp: bytes, *, large: bool) -> None:
        """Into the central directory."""
        far = self._offset >= _MAX_32
        sizes = (member.size, member.size) if large else ()
        extra = (_zip64_extra(*sizes, *([self._offset] if far else [])) if large or far else b"") + stamp
        version = _VERSION_ZIP64 if large or far else _VERSION
        attributes = (_REGULAR_FILE | MEMBER_MODE) << 16
        offset = _MAX_32 if far else self._offset
        self._directory += _CENTRAL.pack(
            b"PK\1\2", _VERSION_ZIP64, _UNIX, version, *common, len(extra), 0, 0, 0, attributes, offset
        )
        self._directory += name + extra

    def end(self, member: Member) -> bytes:  # noqa: ARG002 - as the protocol has it
        """Nothing: all was said before."""
        return b""

    def finish(self) -> bytes:
        """The central directory and its end, of 64 bits where needed."""
        size, start, count = len(self._directory), self._offset, self._members
        if count >= _MAX_16 or size >= _MAX_32 or start >= _MAX_32:
            self._directory += _END_64.pack(
                b"PK\6\6", _END_64.size - 12, _VERSION_ZIP64, _UNIX, _VERSION_ZIP64, 0, 0, count, count, size, start
            )
            self._directory += _END_64_LOCATOR.pack(b"PK\6\7", 0, start + size, 1)
        count, size, start = min(count, _MAX_16), min(size, _MAX_32), min(start, _MAX_32)
        self._directory += _END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0)
        return bytes(self._directory)

    def held(self) -> int:
        """The central directory, and its copy at the end."""
        return 2 * len(self._directory)


def too_many(limit: int) -> RequestInvalidError:
    """For an export of more than ``limit`` members."""
    problem = f"must be ARCHIVE_FORMAT_TAR for more than {limit - 1} objects"
    return RequestInvalidError(f"format {problem}: a zip archive is full.", violations=[Violation("format", problem)])


def _zip64_extra(*values: int) -> bytes:
    """Extra field 1, with the values that stand as 0xFFFFFFFF elsewhere."""
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)


def _time_extra(time: datetime) -> bytes:
    """Where the time fits."""
    seconds = int(time.timestamp())
    return _TIME.pack(0x5455, 5, 1, seconds) if 0 <= seconds <= _MAX_TIMESTAMP else b""


def _dos_time(time: datetime) -> tuple[int, int]:
    """Time and date as MS-DOS had them, in UTC, to two seconds; the nearest where it had none."""
    if not _FIRST_YEAR <= time.year <= _LAST_YEAR:
        time = time.replace(year=min(max(time.year, _FIRST_YEAR), _LAST_YEAR), month=1, day=1)
    return (
        time.hour << 11 | time.minute << 5 | time.second // 2,
        (time.year - _FIRST_YEAR) << 9 | time.month << 5 | time.day,
    )
