"""Whether an audit log is what its writers wrote. docs/audit.md says what this finds, and what nothing can.

The promise: memory does not grow with what is in the files, which are read twice, save with what their checkpoints say
of other chains (claims.py).
"""

from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keystow_service.adapters.audit.chain_check import ChainCheck, Life
from keystow_service.adapters.audit.claims import Claim, Claims
from keystow_service.adapters.audit.finding import Finding, Kind
from keystow_service.adapters.audit.source import Line, Progress, Source, examine, lines_of


def verify(
    files: Iterable[Path],
    keys: Sequence[Ed25519PublicKey],
    *,
    anchors: Iterable[Claim] = (),
    partial: bool = False,
    running: Container[str] = (),
    ended: Collection[Path] = (),
    progress: Progress = lambda _: None,
) -> Iterator[Finding]:
    """What is wrong, as it is found. ``anchors`` are checkpoints that were kept elsewhere.

    ``partial``: these files are not all there are; what stood before them, and other writers, need not be given.
    ``running`` are writers that go on; all others have ended that wrote any of the files ``ended``.
    Raises OSError, AuditError.
    """
    claims: dict[str, Claims] = {}

    def seen(claim: Claim) -> None:
        if claim.end.writer not in claims:
            claims[claim.end.writer] = Claims(claim.end.writer)
        claims[claim.end.writer].add(claim)

    for claim in anchors:
        seen(claim)
    sources = [examine(path, seen, progress) for path in files]
    chains: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        chains[source.writer].append(source)
    for writer in sorted(claims.keys() - chains.keys()):
        claim = claims[writer].newest()
        kind = Kind.PARTIAL if partial else Kind.ABSENT
        text = f"no file of this writer is here, but its line {claim.end.seq} was seen by {claim.file}:{claim.line}"
        yield Finding(kind, text, writer)
    for writer, parts in sorted(chains.items()):
        over = any(part.path in ended for part in parts)
        life = Life.RUNS if writer in running else Life.ENDED if over else Life.UNKNOWN
        check = ChainCheck(writer, keys, claims.pop(writer, Claims(writer)), partial=partial, life=life)
        yield from _check(check, sorted(parts, key=lambda part: (part.first_seq, part.path.name)), progress)


def _check(check: ChainCheck, parts: Sequence[Source], progress: Progress) -> Iterator[Finding]:
    read: dict[bytes, Path] = {}
    torn: Line | None = None
    for part in parts:
        if part.content in read:
            text = f"holds the same as {read[part.content]}"
            yield Finding(Kind.TWICE, text, part.writer, part.path)
            continue
        read[part.content] = part.path
        if 0 < part.first_seq <= check.reached:
            yield from check.branch(part.path, part.first_seq)
        check.file = part.path
        for line in lines_of(part.path, progress):
            if torn is not None:
                yield from check.line(torn)
                torn = None
            if line.whole:
                yield from check.line(line)
            else:
                torn = line
    yield from check.end(torn)
