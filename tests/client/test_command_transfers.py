"""The command against the real server: trees, streams and ranges come back as they went."""

import os
import socket
from pathlib import Path

import pytest

from client.command import Command
from client.content import names, noise
from keystow_client import Client
from keystow_client.cli.output import printable

MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("real_server")


def make_tree(root: Path) -> dict[str, bytes]:
    """Files of edge sizes, in directories, with names that need care; gives content by relative path."""
    files = {
        "one": b"1",
        "empty": b"",
        "a/two": noise(MIB - 1),
        "a/b/exactly": noise(MIB),
        "a/b/more": noise(3 * MIB + 7),
        "with space/ünïcode ☃": b"snow",
        "with\nline end\x1b[31m": b"red",
        "back\\slash": b"b",
        "-dash": b"d",
        "a.tar/%41:*?": b"p",
    }
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


def store(keystow: Command, tenant: str, objects: dict[str, bytes]) -> None:
    """Put objects there without the command."""
    with Client(keystow.address) as client:
        for key, data in objects.items():
            client.put(tenant, key, data)


def read_tree(root: Path) -> dict[str, bytes]:
    """Content by relative path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_directory_makes_the_round_trip(real_keystow: Command, tenant: str) -> None:
    """Put -r and get -r give the same files, whether the directory's name or its content was asked for."""
    files = make_tree(real_keystow.directory / "tree")
    put = real_keystow("put", "-r", "tree", f"{tenant}:backup/")
    assert (put.code, put.err) == (0, "")
    assert put.out.decode().count(f"{tenant}:backup/tree/") == len(files)
    keys = {record["key"] for record in real_keystow("ls", f"{tenant}:", "--json").records}
    assert keys == {f"backup/tree/{name}" for name in files}

    assert real_keystow("get", "-r", f"{tenant}:backup/tree", "named").code == 0
    assert read_tree(real_keystow.directory / "named" / "tree") == files
    assert real_keystow("get", "-r", "-j", "1", f"{tenant}:backup/tree/", "content").code == 0
    assert read_tree(real_keystow.directory / "content") == files


@pytest.mark.parametrize(
    ("source", "target", "key"),
    [
        ("tree", ":", "tree/f"),
        ("tree", ":x/", "x/tree/f"),
        ("tree", ":x", "x/f"),
        ("tree/", ":x/", "x/tree/f"),
        (".", ":x/", "x/tree/f"),
        (".", ":", "tree/f"),
        ("tree/..", ":x/", "x/tree/f"),
    ],
)
def test_where_a_directory_goes(real_keystow: Command, tenant: str, source: str, target: str, key: str) -> None:
    """Below a prefix under its own name, else under the key given; . and .. have no name."""
    (real_keystow.directory / "tree").mkdir()
    (real_keystow.directory / "tree" / "f").touch()
    result = real_keystow.in_process("put", "-r", source, tenant + target)
    assert (result.code, result.lines) == (0, [f"{tenant}:{key}"])


def test_where_files_go(real_keystow: Command, tenant: str) -> None:
    """A key is taken as it is, a prefix gets the file's name, and get goes the other way."""
    (real_keystow.directory / "f").write_bytes(b"data")
    for target, key in ((":", "f"), (":dir/", "dir/f"), (":as:is", "as:is")):
        assert real_keystow.in_process("put", "f", tenant + target).lines == [f"{tenant}:{key}"]
    (real_keystow.directory / "into").mkdir()
    for dest, path in ((["into"], "into/f"), (["other"], "other"), ([], "f")):
        result = real_keystow.in_process("get", "--force", f"{tenant}:dir/f", *dest)
        assert (result.code, result.lines) == (0, [path])
        assert (real_keystow.directory / path).read_bytes() == b"data"
    result = real_keystow.in_process("get", f"{tenant}:f", f"{tenant}:as:is", "into", "--force")
    assert (result.code, sorted(result.lines)) == (0, ["into/as:is", "into/f"])


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 7])
def test_standard_streams(real_keystow: Command, tenant: str, size: int) -> None:
    """- is standard input and output, byte for byte and without anything else."""
    data = noise(size)
    assert real_keystow("put", "-", f"{tenant}:k", stdin=data).code == 0
    assert real_keystow("get", f"{tenant}:k", "-").out == data
    assert real_keystow("cat", f"{tenant}:k", f"{tenant}:k").out == data * 2
    assert real_keystow("get", "--json", f"{tenant}:k", "-").out == data


def test_ranges_and_versions(real_keystow: Command, tenant: str) -> None:
    """--offset, --length and --version-id choose what is read."""
    version = real_keystow("put", "--json", "-", f"{tenant}:k", stdin=b"0123456789").records[0]["version_id"]
    assert real_keystow("cat", f"{tenant}:k", "--offset", "3", "--length", "4").out == b"3456"
    assert real_keystow("cat", f"{tenant}:k", "--offset", "-2").out == b"89"
    assert real_keystow("get", f"{tenant}:k", "-", "--version-id", version).out == b"0123456789"
    assert real_keystow("put", "-", f"{tenant}:k", "--if-version-id", version, stdin=b"new").code == 0
    changed = real_keystow("cat", f"{tenant}:k", "--version-id", version)
    assert (changed.code, changed.out) == (4, b"")
    assert "OBJECT_CHANGED" in changed.err


def test_objects_and_files_are_replaced_only_on_demand(real_keystow: Command, tenant: str) -> None:
    """Put needs --overwrite, get needs --force; without them nothing changes."""
    (real_keystow.directory / "f").write_bytes(b"new")
    store(real_keystow, tenant, {"f": b"old"})
    refused = real_keystow.in_process("put", "f", f"{tenant}:")
    assert refused.code == 4
    assert "OBJECT_EXISTS" in refused.err
    assert "--overwrite" in refused.err
    refused = real_keystow.in_process("get", f"{tenant}:f")
    assert refused.code == 4
    assert "--force" in refused.err
    assert (real_keystow.directory / "f").read_bytes() == b"new"
    assert real_keystow.in_process("put", "--overwrite", "f", f"{tenant}:").code == 0
    assert real_keystow("cat", f"{tenant}:f").out == b"new"


def test_what_cannot_be_stored_is_reported(real_keystow: Command, tenant: str) -> None:
    """Links, sockets, pipes, names that are no text: each told, the rest stored, and the code is not 0."""
    tree = real_keystow.directory / "tree"
    (tree / "hollow").mkdir(parents=True)
    (tree / "good").write_bytes(b"good")
    (tree / "link").symlink_to("good")
    (tree / "loop").symlink_to(tree)
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tree / "socket"))
    Path(os.fsdecode(os.fsencode(tree) + b"/not-utf8-\xff")).touch()
    result = real_keystow.in_process("put", "-r", "tree", f"{tenant}:")
    assert result.code == 1
    assert result.lines == [f"{tenant}:tree/good"]
    for name in ("link", "loop", "pipe", "socket", "not-utf8-", "hollow"):
        assert f"tree/{name}" in result.err
    assert "1 transferred, 4 B; 5 failed" in result.err


def test_an_empty_directory_is_mentioned(real_keystow: Command, tenant: str) -> None:
    """Whoever stores one learns that nothing is there of it."""
    (real_keystow.directory / "hollow").mkdir()
    result = real_keystow.in_process("put", "-r", "hollow", f"{tenant}:")
    assert (result.code, result.lines) == (0, [])
    assert "hollow: an empty directory, of which nothing is stored" in result.err


def test_a_directory_needs_to_be_asked_for(real_keystow: Command, tenant: str) -> None:
    """Without -r a directory is a failure, and the files beside it are stored."""
    (real_keystow.directory / "d").mkdir()
    (real_keystow.directory / "f").touch()
    result = real_keystow.in_process("put", "d", "f", "missing", f"{tenant}:")
    assert (result.code, result.lines) == (1, [f"{tenant}:f"])
    assert "put -r" in result.err
    assert "missing" in result.err


def test_metadata_and_description(real_keystow: Command, tenant: str) -> None:
    """What is given with put is what stat shows, for people and for programs."""
    real_keystow(
        "put", "-", f"{tenant}:k", "--content-type", "text/x", "--metadata", "a=1", "--metadata", "b=x=y", stdin=b"data"
    )
    shown = real_keystow("stat", f"{tenant}:k").out.decode()
    assert {line.split()[0]: line.split()[1] for line in shown.splitlines()}.items() >= {
        ("content_type", "text/x"),
        ("metadata.a", "1"),
        ("metadata.b", "x=y"),
        ("size", "4"),
    }
    (record,) = real_keystow("stat", "--json", f"{tenant}:k").records
    assert record["metadata"] == {"a": "1", "b": "x=y"}
    assert (record["size"], len(record["crc32c"]), record["create_time"][-1]) == (4, 8, "Z")


def test_listing_and_removing(real_keystow: Command, tenant: str) -> None:
    """Ls shows keys, -l aligned sizes, rm removes; a missing object is told unless forced."""
    store(real_keystow, tenant, {"a/1": bytes(10), "a/2": bytes(3 * MIB), "b": b""})
    assert real_keystow.in_process("ls", tenant).lines == ["a/1", "a/2", "b"]
    assert real_keystow.in_process("ls", f"{tenant}:a/").lines == ["a/1", "a/2"]
    long = real_keystow.in_process("ls", "-l", f"{tenant}:").lines
    assert [line[:10].strip() for line in long] == ["10 B", "3.0 MiB", "0 B"]
    assert real_keystow.in_process("rm", f"{tenant}:a/1", f"{tenant}:a/2").code == 0
    assert real_keystow.in_process("ls", tenant).lines == ["b"]
    missing = real_keystow.in_process("rm", f"{tenant}:a/1", f"{tenant}:b")
    assert missing.code == 3
    assert "OBJECT_NOT_FOUND" in missing.err
    assert real_keystow.in_process("ls", tenant).lines == []
    assert real_keystow.in_process("rm", "--force", f"{tenant}:b").code == 0
    store(real_keystow, tenant, {"c": b"", "d": b""})
    removed = real_keystow.in_process("rm", "--json", f"{tenant}:c", f"{tenant}:d").records
    assert removed == [{"tenant_id": tenant, "key": key} for key in "cd"]


HOSTILE = [
    "../up",
    "a/../../up",
    "/absolute",
    "a//b",
    "a/./b",
    ".",
    "..",
    "a/..",
    "slash/",
    "nul\0",
]


def test_hostile_keys_stay_inside(real_keystow: Command, tenant: str) -> None:
    """Keys that are no paths below the destination are reported one by one, the others restored, nothing outside."""
    store(real_keystow, tenant, dict.fromkeys(HOSTILE, b"evil"))
    store(real_keystow, tenant, {"...": b"good", "good\x1b]0;title": b"good"})
    result = real_keystow("get", "-r", f"{tenant}:", "dest")
    assert result.code == 1
    assert names(real_keystow.directory) == ["dest"]
    assert names(real_keystow.directory.parent) == ["here"]
    assert read_tree(real_keystow.directory / "dest") == {"...": b"good", "good\x1b]0;title": b"good"}
    for key in HOSTILE:
        assert f"keystow: {tenant}:{printable(key)}: skipped" in result.err
    assert real_keystow("get", f"{tenant}:../up", "by-name").code == 0
    assert (real_keystow.directory / "by-name").read_bytes() == b"evil"
    assert real_keystow("get", f"{tenant}:..").code == 1


def test_links_in_the_destination_are_not_followed(real_keystow: Command, tenant: str, tmp_path: Path) -> None:
    """A directory that is a link could lead anywhere: what would go through it is refused."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (real_keystow.directory / "dest").mkdir()
    (real_keystow.directory / "dest" / "sub").symlink_to(outside)
    (real_keystow.directory / "dest" / "file").symlink_to(outside / "file")
    store(real_keystow, tenant, {"sub/file": b"data", "file": b"data"})
    result = real_keystow.in_process("get", "-r", "--force", f"{tenant}:", "dest")
    assert (result.code, result.lines) == (1, ["dest/file"])
    assert "in the way" in result.err
    assert names(outside) == []
    assert not (real_keystow.directory / "dest" / "file").is_symlink()


@pytest.mark.parametrize("jobs", ["1", "8"])
def test_a_file_and_a_directory_of_one_name(real_keystow: Command, tenant: str, jobs: str) -> None:
    """Keys may be a and a/b, files may not: one is restored, the other reported."""
    store(real_keystow, tenant, {"a": b"data", "a/b": b"data"})
    result = real_keystow.in_process("get", "-r", "-j", jobs, f"{tenant}:", "dest")
    assert result.code != 0
    assert len(result.lines) == 1
    assert len(read_tree(real_keystow.directory / "dest")) == 1


def test_a_prefix_is_a_directory(real_keystow: Command, tenant: str) -> None:
    """Dir means dir and what is below it, never its neighbours."""
    store(real_keystow, tenant, dict.fromkeys(("dir/x", "dir2/x", "dir.txt"), b"data"))
    assert real_keystow.in_process("get", "-r", f"{tenant}:dir", "dest").lines == ["dest/dir/x"]
    assert real_keystow.in_process("get", "-r", f"{tenant}:dir.txt", "dest").lines == ["dest/dir.txt"]
    nothing = real_keystow.in_process("get", "-r", f"{tenant}:di", "dest")
    assert nothing.code == 3
    assert "no object" in nothing.err


def test_tenants(real_keystow: Command, tenant: str) -> None:
    """Registering asks for confirmation, and show, list and data-centers tell what there is."""
    arguments = ("tenant", "register", f"{tenant}-2", "--data-center", "us")
    assert real_keystow.in_process(*arguments, "--confirm-permanent").code == 2
    refused = real_keystow.in_process(*arguments, "--provider-managed")
    assert refused.code == 2
    assert "--confirm-permanent" in refused.err
    registered = real_keystow.in_process(
        *arguments, "--provider-managed", "--confirm-permanent", "--display-name", "Two", "--json"
    )
    assert registered.records[0]["display_name"] == "Two"
    shown = real_keystow.in_process("tenant", "show", f"{tenant}-2").out.decode()
    assert "provider" in shown
    listed = {record["tenant_id"] for record in real_keystow.in_process("tenant", "list", "--json").records}
    assert {tenant, f"{tenant}-2"} <= listed
    assert real_keystow.in_process("tenant", "show", "nobody").code == 3
    bad = real_keystow.in_process(
        "tenant", "register", "x-1", "--data-center", "us", "--key-arn", "alias/x", "--confirm-permanent"
    )
    assert bad.code == 6
    assert "kms_key_arn" in bad.err
    assert any(line.startswith("us ") for line in real_keystow.in_process("data-centers").lines)
    assert "max_chunk_size" in real_keystow.in_process("server-info").out.decode()
