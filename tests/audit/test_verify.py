"""What the verifier finds: every single change to a log, and which changes it can only point at."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.writing import files_of, small_files, write_now
from keystow_service.adapters.audit.anchors import Anchors
from keystow_service.adapters.audit.claims import Claim
from keystow_service.adapters.audit.finding import Finding, Kind
from keystow_service.adapters.audit.keys import AuditError, AuditFiles, load_signing_key
from keystow_service.adapters.audit.line import NOTHING, End, digest, encode, file_name, new_writer, signed
from keystow_service.adapters.audit.source import files_in
from keystow_service.adapters.audit.verify import verify

Log = Mapping[str, bytes]  # the content of each file, by its name


@dataclass(frozen=True)
class Logs:
    """Three files of a first writer, whose end is witnessed by the second one; both are closed."""

    place: Path
    key: Ed25519PublicKey
    files: Log = field(repr=False)
    first: Sequence[str]
    second: str
    anchor: Claim  # the very last checkpoint, from the server's own log

    def found(self, log: Log, *, anchored: bool = False, partial: bool = False) -> list[Finding]:
        """After the files were changed to these."""
        for path in self.place.iterdir():
            path.unlink()
        for name, content in log.items():
            (self.place / name).write_bytes(content)
        anchors = [self.anchor] if anchored else []
        return list(verify(files_in([self.place]), [self.key], anchors=anchors, partial=partial))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """Written by the real adapter."""
    directory = tmp_path_factory.mktemp("audit")
    write_now(directory, 9, small_files(2000))
    write_now(directory, 3)
    files = {path.name: path.read_bytes() for path in files_of(directory)}
    *first, second = files
    assert len(first) == 3
    lines = files[second].splitlines()
    end = End(second.partition(".")[0], len(lines), digest(lines[-1]))
    key = load_signing_key(AuditFiles(directory)).public
    place = tmp_path_factory.mktemp("changed")
    return Logs(place, key, files, first, second, Claim(end, Path("server.log"), 1))


def kinds(findings: Sequence[Finding]) -> set[Kind]:
    """Of what is wrong."""
    return {finding.kind for finding in findings if not finding.is_note}


def test_nothing_is_wrong(logs: Logs) -> None:
    """A log as it was written is clean, its parts too if they are said to be parts, and compressed files are read."""
    assert logs.found(logs.files, anchored=True) == []
    without_first = {name: content for name, content in logs.files.items() if name != logs.first[0]}
    assert kinds(logs.found(without_first, partial=True)) == set()
    assert {finding.kind for finding in logs.found(without_first, partial=True)} == {Kind.PARTIAL}
    compressed = {f"{name}.gz": gzip.compress(content) for name, content in logs.files.items()}
    assert logs.found(compressed) == []
    twice = {**logs.files, **compressed}
    assert {finding.kind for finding in logs.found(twice)} == {Kind.TWICE}


# --- Any single change ------------------------------------------------------------------------------------------------

Change = Callable[[st.DataObject, Logs], dict[str, bytes]]


def _a_file(data: st.DataObject, logs: Logs) -> tuple[str, list[bytes]]:
    name = data.draw(st.sampled_from(sorted(logs.files)))
    return name, logs.files[name].splitlines(keepends=True)


def _an_index(data: st.DataObject, items: Sequence[object]) -> int:
    return data.draw(st.integers(0, len(items) - 1))


def deletion(data: st.DataObject, logs: Logs) -> dict[str, bytes]:
    """Of one line, or of some in a row."""
    name, lines = _a_file(data, logs)
    start = _an_index(data, lines)
    stop = data.draw(st.integers(start + 1, len(lines)))
    return {**logs.files, name: b"".join(lines[:start] + lines[stop:])}


def swap(data: st.DataObject, logs: Logs) -> dict[str, bytes]:
    """Of two lines, wherever they are."""
    (one, first), (other, second) = _a_file(data, logs), _a_file(data, logs)
    i, j = _an_index(data, first), _an_index(data, second)
    if one == other:
        first[i], first[j] = first[j], first[i]
        return {**logs.files, one: b"".join(first)}
    first[i], second[j] = second[j], first[i]
    return {**logs.files, one: b"".join(first), other: b"".join(second)}


def edit(data: st.DataObject, logs: Logs) -> dict[str, bytes]:
    """Of one byte."""
    name = data.draw(st.sampled_from(sorted(logs.files)))
    content = bytearray(logs.files[name])
    content[_an_index(data, content)] = data.draw(st.integers(0, 255))
    return {**logs.files, name: bytes(content)}


def insertion(data: st.DataObject, logs: Logs) -> dict[str, bytes]:
    """Of a line that stands somewhere."""
    name, lines = _a_file(data, logs)
    _, others = _a_file(data, logs)
    lines.insert(data.draw(st.integers(0, len(lines))), data.draw(st.sampled_from(others)))
    return {**logs.files, name: b"".join(lines)}


def truncation(data: st.DataObject, logs: Logs) -> dict[str, bytes]:
    """Of one file, anywhere."""
    name = data.draw(st.sampled_from(sorted(logs.files)))
    return {**logs.files, name: logs.files[name][: _an_index(data, logs.files[name])]}


def splice(data: st.DataObject, logs: Logs) -> dict[str, bytes]:
    """The front of one file with the back of another."""
    (name, front), (_, back) = _a_file(data, logs), _a_file(data, logs)
    i, j = data.draw(st.integers(0, len(front))), data.draw(st.integers(0, len(back)))
    return {**logs.files, name: b"".join(front[:i] + back[j:])}


def removal(data: st.DataObject, logs: Logs) -> dict[str, bytes]:
    """Of a whole file."""
    name = data.draw(st.sampled_from(sorted(logs.files)))
    return {other: content for other, content in logs.files.items() if other != name}


@pytest.mark.parametrize("change", [deletion, swap, edit, insertion, truncation, splice, removal])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_single_change_is_found(logs: Logs, change: Change, data: st.DataObject) -> None:
    """With the last checkpoint at hand. Without, the end of the last chain can be cut off and is told to be open."""
    log = change(data, logs)
    changed = {name for name, content in logs.files.items() if log.get(name) != content}
    anchored, alone = logs.found(log, anchored=True), logs.found(log)
    if not changed:
        assert anchored == alone == []
        return
    assert kinds(anchored), anchored
    if changed == {logs.second}:
        assert alone or logs.second not in log
    else:
        assert kinds(alone), alone


# --- One who knows how ------------------------------------------------------------------------------------------------


def rechained(lines: Sequence[bytes], change: Callable[[bytes], bytes], key: Ed25519PrivateKey | None) -> bytes:
    """Lines changed, numbers and hashes made to fit, checkpoints signed with ``key`` or left out."""
    forged = list(lines[:1])
    for line in lines[1:]:
        entry = json.loads(change(line))
        if entry.pop("signature", None) and key is None:
            continue
        entry |= {"seq": json.loads(lines[0])["seq"] + len(forged), "prev": digest(forged[-1])}
        body = json.dumps(entry, separators=(",", ":")).encode()
        forged.append(signed(body, key.sign) if key and entry["event"] == "checkpoint" else body)
    return b"\n".join((*forged, b""))


def blame(line: bytes) -> bytes:
    """Somebody else."""
    return line.replace(b'"caller":"connector"', b'"caller":"somebody"')


def test_a_forger_without_the_key(logs: Logs) -> None:
    """A chain that was altered and made to fit again lacks signatures, be its checkpoints forged or left out."""
    lines = logs.files[logs.second].splitlines()
    forged = rechained(lines, blame, Ed25519PrivateKey.generate())
    assert b"somebody" in forged
    assert kinds(logs.found({**logs.files, logs.second: forged})) == {Kind.SIGNATURE}
    unsigned = rechained(lines, blame, None)
    assert kinds(logs.found({**logs.files, logs.second: unsigned})) == {Kind.UNSIGNED}


@pytest.mark.parametrize("first", [1, -997])
def test_a_chain_of_one_without_the_key(logs: Logs, first: int) -> None:
    """Records in a chain of their own that has no signature, because it claims to be too short for one."""
    writer, previous, lines = new_writer(datetime(2026, 1, 1, tzinfo=UTC)), NOTHING, []
    for seq in range(first, 2):
        lines.append(encode(End(writer, seq - 1, previous), datetime(2026, 1, 1, tzinfo=UTC), "rpc", {}))
        previous = digest(lines[-1])
    log = {**logs.files, file_name(writer, 1): b"\n".join((*lines, b""))}
    assert Kind.ALTERED in kinds(logs.found(log))


def test_a_fork(logs: Logs) -> None:
    """Another content of lines that stand already, in a file of its own that fits, too."""
    lines = logs.files[logs.first[-1]].splitlines()
    forged = rechained(lines, blame, Ed25519PrivateKey.generate())
    fork = logs.first[-1].replace(".000003.", ".000004.")
    assert Kind.FORKED in kinds(logs.found({**logs.files, fork: forged}))


def test_one_who_has_the_key(tmp_path: Path) -> None:
    """Who has disk and key can write another log, which nothing in it shows; a checkpoint kept elsewhere does."""
    write_now(tmp_path, 3)
    [path] = files_of(tmp_path)
    private = load_pem_private_key((tmp_path / "signing.key").read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    lines = path.read_bytes().splitlines()
    claim = Claim(End(path.name.partition(".")[0], len(lines), digest(lines[-1])), Path("server.log"), 1)

    def found(*anchors: Claim) -> set[Kind]:
        return {finding.kind for finding in verify([path], [private.public_key()], anchors=anchors)}

    path.write_bytes(rechained(lines, blame, private))
    assert found() == set()
    assert found(claim) == {Kind.FORKED}
    path.write_bytes(b"\n".join((*lines[:2], b"")))
    assert found() == {Kind.OPEN}
    assert found(claim) == {Kind.OPEN, Kind.TRUNCATED}


def test_a_chain_that_was_seen_twice(logs: Logs) -> None:
    """Every sight of it counts, not the last alone: it may have been another one before."""
    name = logs.first[0]
    seen = [digest(line) for line in logs.files[name].splitlines()]
    writer = name.partition(".")[0]
    before, after = (Claim(End(writer, seq, seen[seq - 1]), Path("server.log"), seq) for seq in (3, 5))
    other = Claim(End(writer, 4, digest(b"another")), Path("server.log"), 4)

    def found(*anchors: Claim) -> list[Finding]:
        return list(verify([logs.place / each for each in logs.files], [logs.key], anchors=anchors))

    logs.found(logs.files)
    assert found(after, before) == []
    [forked] = found(after, other, before)
    assert (forked.kind, forked.line) == (Kind.FORKED, 4)
    assert "was seen by server.log:4" in forked.text


def test_what_is_no_end_of_a_chain(tmp_path: Path) -> None:
    """Lines and logs that somebody made up say what they like of other chains."""
    write_now(tmp_path, 3)
    [path] = files_of(tmp_path)
    writer = path.name.partition(".")[0]
    ends = [
        {"writer": writer, "seq": seq, "hash": told} for seq, told in ((-1, "0" * 64), (1 << 70, "0" * 64), (1, "x"))
    ]
    kept = tmp_path / "server.log"
    kept.write_text("".join(json.dumps({"event": "audit_checkpoint", **end}) + "\n" for end in ends))
    with pytest.raises(AuditError, match="has no checkpoint"):
        list(Anchors([kept]))
    content = path.read_bytes()
    path.write_bytes(
        content + encode(End(writer, 99, NOTHING), datetime(2026, 1, 1, tzinfo=UTC), "x", {"others": ends})
    )
    key = load_signing_key(AuditFiles(tmp_path)).public
    assert Kind.TORN in {finding.kind for finding in verify([path], [key])}


def test_findings_name_their_place(logs: Logs) -> None:
    """File and line, and what was there is not repeated to a terminal as it is."""
    name = logs.first[1]
    lines = logs.files[name].splitlines(keepends=True)
    lines[2] = b'{"writer":"\\u001b[31m","seq":1,"prev":"%b","event":"x"}\n' % (b"0" * 64)
    [foreign, *_] = logs.found({**logs.files, name: b"".join(lines)})
    assert (foreign.kind, foreign.file, foreign.line) == (Kind.FOREIGN, logs.place / name, 3)
    assert str(foreign) == f"{logs.place / name}:3: foreign: is a line of the writer ?[31m"


def test_files_of_any_kind(logs: Logs, tmp_path: Path) -> None:
    """What is no audit log at all is told once for each run of lines, and read in pieces however long its lines are."""
    nonsense = tmp_path / "nonsense"
    deep, large = b"[" * 60_000 + b"\n", b'{"seq": ' + b"9" * 10_000 + b"}\n"
    nonsense.write_bytes(b"x" * 1_000_000 + b"\n" + b"[]\n" * 1000 + deep + large + bytes(100))
    found = list(verify([nonsense], [logs.key]))
    assert [finding.kind for finding in found] == [Kind.UNREADABLE, Kind.TORN, Kind.OPEN]
