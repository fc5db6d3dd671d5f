"""`make demo`: what keystow promises, shown on a real server of its own in about a minute.

Starts a server on the embedded default in a temporary directory, and exits 0 only if every step held.
"""

import filecmp
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from keystow_client import Client, KeyManagement, KeystowError, UploadProgress

BIN = Path(sys.executable).parent
CHECKOUT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
BIG = 256 * MIB
# Seconds; the service's defaults are 30 and 60. Short here, so that revocation can be watched.
LEASE_REFRESH, LEASE_BOUND = 1, 3

# What a checkout has beside its sources; restored byte for byte like the rest, but not in a minute.
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "data", "__pycache__", ".*_cache", ".hypothesis")


class StepFailedError(Exception):
    """A promise did not hold."""


class Demo:
    """The steps, in order."""

    def __init__(self, folder: Path, server: "DemoServer", client: Client) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._server = server
        self._address = server.address
        self._client = client
        self._number = 0

    @contextmanager
    def _step(self, title: str) -> Iterator[None]:
        self._number += 1
        print(f"\n{self._number}. {title}")
        started = time.monotonic()
        yield
        print(f"   held, in {time.monotonic() - started:.1f} s")

    def run(self) -> None:
        """Every step; raises StepFailedError or what the client raises at the first that does not hold."""
        with self._step("Register a tenant whose key the provider manages"):
            self._client.register_tenant(
                "acme", data_center="us", key_management=KeyManagement.PROVIDER, confirm_permanent=True
            )
            say(f"acme uses {self._client.get_tenant('acme').kms_key_arn}")
        with self._step("Create a key of the customer's own, and register a tenant under it"):
            arn = self._keys("create", "--region", "us-east-1", "--tenant", "globex")
            registration = self._client.register_tenant(
                "globex",
                data_center="us",
                key_management=KeyManagement.SELF,
                kms_key_arn=arn,
                confirm_permanent=True,
            )
            say(f"globex uses {arn}")
            say("checks passed: " + ", ".join(check.name for check in registration.checks))
        self._directory()
        self._big_file()
        self._interruption()
        self._export()
        self._revocation(arn)
        self._tampering()

    def _directory(self) -> None:
        tree, restored = self._folder / "tree", self._folder / "restored"
        shutil.copytree(CHECKOUT, tree, ignore=LEFT_OUT)
        files = [path for path in tree.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        with self._step("Back up a directory tree (this checkout) with the command keystow, and restore it"):
            self._keystow("put", "-r", str(tree), "acme:backup/")
            self._keystow("get", "-r", "acme:backup/tree/", str(restored))
            require_same_tree(tree, restored)
            say(f"{len(files)} files, {size / MIB:.1f} MiB, identical after restore")

    def _big_file(self) -> None:
        big, restored = self._folder / "big", self._folder / "big-restored"
        digest = write_random(big, BIG)
        with self._step("Back up a file of 256 MiB under the customer's key, restore it, and read a range of it"):
            seconds = clocked(lambda: self._client.put("globex", "big", big))
            say(f"stored at {BIG / MIB / seconds:.0f} MiB/s")
            seconds = clocked(lambda: self._client.get("globex", "big", restored))
            say(f"restored at {BIG / MIB / seconds:.0f} MiB/s")
            require(sha256(restored) == digest, "the restored file has another SHA-256")
            say(f"SHA-256 {digest[:16]}… before and after")
            offset, length = 100 * MIB + 12_345, 100_000
            with self._client.get("globex", "big", offset=offset, length=length) as download:
                found = b"".join(download)
            with big.open("rb") as file:
                file.seek(offset)
                require(found == file.read(length), "the range differs from the file")
            say(f"bytes {offset} to {offset + length} are the file's")
            stored = b"".join(path.read_bytes() for path in self._stored_under("globex"))
            with big.open("rb") as file:
                require(file.read(4096) not in stored, "plaintext lies in the store")
            say(f"{len(stored) / MIB:.1f} MiB lie on disk, none of them in plaintext")

    def _interruption(self) -> None:
        big, restored = self._folder / "big", self._folder / "big-resumed"

        going = Going()

        def killing(sent: int) -> None:
            going.sent(sent)
            if sent >= BIG // 2 and going.safe and not self._server.killed:
                self._server.kill()
                self._server.start()

        with self._step("The server is killed (SIGKILL) in the middle of a 256 MiB Put, and another one is started"):
            self._client.put("globex", "resumed", big, progress=killing, on_upload_progress=going.told)
            require(self._server.killed, "the server was not killed")
            require(going.starts != [], "the client never went back to what was safe")
            say(f"the last progress that the dead server had told: {going.safe} bytes are safe")
            say(f"the client's first progress with the new process: {min(going.starts)} bytes")
            require(min(going.starts) >= going.safe, "the client sent again what was safe")
            self._client.get("globex", "resumed", restored)
            require(filecmp.cmp(big, restored, shallow=False), "the restored file differs")
            say("restored, and identical")
            self._client.delete("globex", "resumed")

    def _export(self) -> None:
        archive, unpacked = self._folder / "acme.tar", self._folder / "unpacked"
        with self._step("Export all of a tenant's objects with keystow, and unpack them with the system's tar"):
            self._keystow("export", "acme", "-o", str(archive))
            names = run_command("tar", "-tf", archive, "--quoting-style=literal").splitlines()
            unpacked.mkdir()
            run_command("tar", "-xf", archive, "-C", unpacked)
            require_same_tree(self._folder / "tree", unpacked / "backup" / "tree")
            manifests = sorted(unpacked.glob(".keystow/MANIFEST-*.jsonl"))
            entries = [json.loads(line) for each in manifests for line in each.read_text("ascii").splitlines()]
            stored = sorted(each.key for each in self._client.list("acme"))
            require(sorted(each["key"] for each in entries) == stored, "the manifests tell of other objects")
            members = [each["member"] for each in entries] + [str(each.relative_to(unpacked)) for each in manifests]
            require(sorted(names) == sorted(members), "tar lists other members")
            say(f"{archive.stat().st_size / MIB:.1f} MiB; tar lists exactly the {len(stored)} objects that are stored")
            say(f"and {len(manifests)} manifests; the tree in it is identical")

    def _revocation(self, arn: str) -> None:
        with self._step("The customer disables the key: backup and restore stop"):
            self._read_some("globex", "big")
            self._keys("disable", arn)
            seconds = clocked(lambda: self._until_refused(lambda: self._read_some("globex", "big")))
            say(f"the last cached data key was of use for {seconds:.1f} s; the stated bound here is {LEASE_BOUND} s")
            require(seconds <= LEASE_BOUND, "reads went on past the bound")
            self._refused("Get", "FAILED_PRECONDITION", "KMS_KEY_DISABLED", lambda: self._read_some("globex", "big"))
            self._refused(
                "Put", "FAILED_PRECONDITION", "KMS_KEY_DISABLED", lambda: self._client.put("globex", "new", b"data")
            )
            archive = self._folder / "globex.tar"
            self._refused(
                "Export", "FAILED_PRECONDITION", "KMS_KEY_DISABLED", lambda: self._client.export("globex", archive)
            )
            require(not any(each.key == "new" for each in self._client.list("globex")), "a refused Put left something")
            self._read_some("acme", next(iter(self._client.list("acme"))).key)
            say("acme, under another key, is not touched")
        with self._step("The customer enables the key: everything works again"):
            self._keys("enable", arn)
            self._client.put("globex", "new", b"data")
            with self._client.get("globex", "new") as download:
                require(b"".join(download) == b"data", "the object differs")
            self._read_some("globex", "big")
            say("Put and Get work at once; nothing was lost")

    def _tampering(self) -> None:
        with self._step("Somebody flips one bit on the disk: not one byte of the bad segment is served"):
            (path,) = (path for path in self._stored_under("globex") if path.stat().st_size > BIG)
            position = 50 * MIB
            with path.open("r+b") as file:
                file.seek(position)
                (byte,) = file.read(1)
                file.seek(position)
                file.write(bytes([byte ^ 1]))
            self._refused("Get", "DATA_LOSS", "OBJECT_TAMPERED", lambda: self._read_all("globex", "big"))
            self._read_some("globex", "big")
            say("ranges that the damage does not touch can still be read")

    def _stored_under(self, tenant: str) -> list[Path]:
        return [path for path in self._data.glob(f"stores/us/objects/{tenant}/**/*") if path.is_file()]

    def _read_some(self, tenant: str, key: str) -> None:
        with self._client.get(tenant, key, length=1000) as download:
            b"".join(download)

    def _read_all(self, tenant: str, key: str) -> None:
        with self._client.get(tenant, key) as download:
            for _ in download:
                pass

    def _refused(self, deed: str, code: str, reason: str, act: Callable[[], object]) -> None:
        try:
            act()
        except KeystowError as error:
            found = (error.code.name if error.code else "", error.reason)
            require(found == (code, reason), f"{deed} failed otherwise: {error}")
            say(f"{deed}: {code} / {reason}")
        else:
            raise StepFailedError(f"{deed} should have failed with {reason}")

    def _until_refused(self, act: Callable[[], object]) -> None:
        deadline = time.monotonic() + LEASE_BOUND
        while time.monotonic() < deadline:
            try:
                act()
            except KeystowError:
                return
            time.sleep(0.05)

    def _keys(self, *arguments: str) -> str:
        return run_command(BIN / "keystow-service", "keys", *arguments, "--data-dir", str(self._data))

    def _keystow(self, *arguments: str) -> str:
        return run_command(BIN / "keystow", "--address", self._address, *arguments)


class Going:
    """How far an interrupted Put came, as its callbacks tell in order."""

    def __init__(self) -> None:
        self.safe = 0  # bytes; the most that had been told when the client first went back
        self.starts: list[int] = []  # bytes; the first progress of each stream since then
        self._sent = 0

    def told(self, progress: UploadProgress) -> None:
        """A server has so much for sure."""
        if not self.starts:
            self.safe = max(self.safe, progress.persisted_size)

    def sent(self, size: int) -> None:
        """The client has sent so much. If that is not more than before, a new stream begins."""
        if size <= self._sent:
            self.starts.append(size)
        self._sent = size


class DemoServer:
    """A real server on a free loopback port, which it keeps when it is started again."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "server.log"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTOW_")} | {
            "KEYSTOW_DATA_DIR": str(folder / "data"),
            "KEYSTOW_LEASE_REFRESH": str(LEASE_REFRESH),
            "KEYSTOW_LEASE_BOUND": str(LEASE_BOUND),
        }
        self.address = "127.0.0.1:0"
        self.killed = False
        self.start()

    def start(self) -> None:
        """Serve."""
        environment = self._environment | {"KEYSTOW_LISTEN": self.address}
        with self._log.open("w", encoding="utf-8") as output:
            self._process = subprocess.Popen([BIN / "keystow-service", "serve"], env=environment, stderr=output)
        self.address = await_address(self._process, self._log)

    def kill(self) -> None:
        """SIGKILL: nothing can be tidied up."""
        self._process.kill()
        self._process.wait()
        self.killed = True

    def stop(self) -> None:
        """Gracefully."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def server(folder: Path) -> Iterator[DemoServer]:
    """A server while the block runs; stops exactly that process."""
    running = DemoServer(folder)
    try:
        yield running
    finally:
        running.stop()


def await_address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where the server says that it listens."""
    while process.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["event"] == "serving":
                return str(entry["address"])
        time.sleep(0.05)
    raise StepFailedError(f"the server did not start:\n{log.read_text(encoding='utf-8')}")


def run_command(*command: str | Path) -> str:
    """Run a command as a user would; gives its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"{Path(command[0]).name} {' '.join(map(str, command[1:]))}: {done.stderr}")
    return done.stdout.strip()


def write_random(path: Path, size: int) -> str:
    """Fill a file with random bytes; gives their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size // MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """The file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_same_tree(one: Path, other: Path) -> None:
    """Raises StepFailedError unless both directories hold the same files with the same bytes."""
    paths = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    require(paths == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}, "files are missing")
    different = [path for path in paths if not filecmp.cmp(one / path, other / path, shallow=False)]
    require(not different, f"files differ: {different}")


def clocked(act: Callable[[], object]) -> float:
    """Seconds that it took."""
    started = time.monotonic()
    act()
    return time.monotonic() - started


def require(holds: bool, problem: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Raises StepFailedError."""
    if not holds:
        raise StepFailedError(problem)


def say(text: str) -> None:
    """A line below the step."""
    print(f"   {text}")


def main() -> int:
    """Run the demo; gives the exit code."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keystow-demo-") as name:
        folder = Path(name)
        try:
            with server(folder) as running, Client(running.address) as client:
                print(f"A keystow server runs on {running.address} with its data in {folder / 'data'}.")
                Demo(folder, running, client).run()
        except (StepFailedError, KeystowError) as error:
            print(f"   DID NOT HOLD: {error}", file=sys.stderr)
            return 1
    print(f"\nEvery step held, in {time.monotonic() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
