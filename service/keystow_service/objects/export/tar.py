"""Tar framing: POSIX.1-2001 (pax) headers as the standard library's tarfile writes them, 512-byte blocks.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_01
"""

import tarfile

from keystow_service.objects.export.framing import MEMBER_MODE, Member

_END = bytes(2 * tarfile.BLOCKSIZE)


class TarFraming:
    """See framing.py. Has no state: a continued archive needs none."""

    needs_crc32 = False

    def begin(self, member: Member) -> bytes:
        """The member's header, with a pax header before it where name or size needs one. Owned by nobody's name."""
        info = tarfile.TarInfo(member.name)
        info.size = member.size
        info.mode = MEMBER_MODE
        info.mtime = int(member.modified.timestamp())
        return info.tobuf(tarfile.PAX_FORMAT)

    def end(self, member: Member) -> bytes:
        """Zeros up to the next block."""
        return bytes(-member.size % tarfile.BLOCKSIZE)

    def finish(self) -> bytes:
        """Two blocks of zeros."""
        return _END

    def held(self) -> int:
        """Nothing is remembered of members."""
        return 0
