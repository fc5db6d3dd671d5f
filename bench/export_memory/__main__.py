"""`make exports`: an export's memory does not grow with the number of objects, shown at size.

Stores small objects, then exports few of them and all of them, as tar and as zip, each from a server process of its
own. Exit code 1 if a process took more for all than for few, beyond what is allowed (docs/export.md):

- tar: nothing but what the allocator takes or leaves;
- zip: the central directory and the one manifest, which stand at the archive's end, for each object.

A zip archive is full at 65,535 members, one of which is the manifest.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from export_memory.filling import FEW, PREFIXES, TENANT, ZIP_FULL, fill
from keystow.v1.storage_pb2 import ARCHIVE_FORMAT_TAR, ARCHIVE_FORMAT_ZIP, ArchiveFormat, ExportRequest
from servers.in_process import attached
from servers.keystow import keystow_server

_MIB = 1 << 20
_ALLOCATOR = 16 * _MIB  # for 100,000 objects less than 170 bytes each: nothing that is kept of one is so small
_ZIP_PER_OBJECT = 1_024  # bytes: twice its entry in the directory (zip.py) and its line of the manifest (run.py)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one export. ``peak`` is the most resident memory of the server's process, in bytes."""

    format: str
    objects: int
    archive_size: int
    seconds: float
    peak: int


def main() -> int:
    """Fill, export, judge; gives the exit code."""
    parser = argparse.ArgumentParser(prog="make exports", description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="print the last line only")
    arguments = parser.parse_args()
    if arguments.objects < FEW:
        parser.error(f"--objects must be at least {FEW}, the number that the peak is compared with")
    with tempfile.TemporaryDirectory(prefix="keystow-exports-") as folder:
        result = asyncio.run(_bench(Path(folder), arguments.objects, quiet=arguments.json))
    print(json.dumps(result))
    return 0 if result["met"] else 1


async def _bench(folder: Path, count: int, *, quiet: bool) -> dict[str, object]:
    def say(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    started = time.monotonic()
    await fill(folder, count)
    say(f"stored {count} objects in {time.monotonic() - started:.0f} s, unsynced")
    figures: list[Figures] = []
    problems: list[str] = []
    for archive_format, most, per_object in (
        (ARCHIVE_FORMAT_TAR, count, 0),
        (ARCHIVE_FORMAT_ZIP, min(count, ZIP_FULL), _ZIP_PER_OBJECT),
    ):
        few, many = [await _export(folder, archive_format, number) for number in (FEW, most)]
        allowed = _ALLOCATOR + per_object * most
        for each in (few, many):
            say(
                f"{each.format}: {each.objects} objects, an archive of {each.archive_size / _MIB:.0f} MiB, "
                f"in {each.seconds:.1f} s; peak {each.peak / _MIB:.1f} MiB"
            )
        growth = many.peak - few.peak
        say(f"{many.format}: {growth / _MIB:+.1f} MiB; {allowed / _MIB:.1f} MiB are allowed")
        if growth > allowed:
            problems.append(f"{many.format}: {growth} bytes more, {allowed} are allowed")
        figures += [few, many]
    say("Both held." if not problems else "DID NOT HOLD: " + "; ".join(problems))
    exports = [asdict(each) for each in figures]
    return {"bench": "export-memory", "exports": exports, "problems": problems, "met": not problems}


async def _export(folder: Path, archive_format: ArchiveFormat.ValueType, count: int) -> Figures:
    """The first ``count`` objects, from a new server."""
    request = ExportRequest(tenant_id=TENANT, prefix=PREFIXES.get(count, ""), format=archive_format)
    with keystow_server(folder) as process:
        async with attached(process.address, folder) as server:
            started = time.monotonic()
            async for response in server.storage.Export(request):
                summary = response.summary  # the last message's
            seconds = time.monotonic() - started
        if not summary.complete or summary.object_count != count:
            raise RuntimeError(f"{summary.object_count} objects instead of {count}")
        name = ArchiveFormat.Name(archive_format).removeprefix("ARCHIVE_FORMAT_").lower()
        return Figures(name, count, summary.archive_size, round(seconds, 1), process.peak_memory)


if __name__ == "__main__":
    sys.exit(main())
