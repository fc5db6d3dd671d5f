"""A container engine in small, for run.py and compose_check.py: one process in namespaces of its own, confined.

Its root is read-only with no /tmp, its user is numeric and without any capability, its variables are those given and no
others; only what is mounted is writable. Every process is ended by its id, and all of them with this one.
"""

# ruff: noqa: S603, T201 - part of scripts that run the system's commands and tell what they found

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# $1 the root, $2 and $3 user and group; pairs of a source here and its place there, up to "--"; then the command.
CONTAIN = """
root=$1 user=$2 group=$3
shift 3
mount --bind "$root" "$root" && mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do
    mount --bind "$1" "$root$2"
    shift 2
done
shift
ip link set lo up
exec chroot "$root" setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs --inh-caps=-all \
    --bounding-set=-all -- "$@"
"""
START_TIMEOUT = 60
STOP_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run. ``mounts`` are folders and files here, by their absolute place there, which must exist."""

    root: Path
    user: str  # "uid:gid"
    command: Sequence[str]
    environment: Mapping[str, str]
    mounts: Mapping[str, Path]
    health: Sequence[str]
    stop_signal: str

    @classmethod
    def of_image(cls, image: Path, settings: Mapping[str, str], mounts: Mapping[str, Path]) -> Self:
        """As image.json says, which replay.py has written, with variables over the image's own."""
        said = json.loads(image.read_text(encoding="utf-8"))
        return cls(
            root=Path(said["root"]),
            user=said["USER"],
            command=[*said["ENTRYPOINT"], *said["CMD"]],
            environment=said["environment"] | dict(settings),
            mounts=mounts,
            health=said["HEALTHCHECK"],
            stop_signal=said["STOPSIGNAL"],
        )

    def variables(self) -> list[str]:
        """NAME=value; HOME as Docker sets it for a user without a name."""
        return [f"{name}={value}" for name, value in ({"HOME": "/"} | dict(self.environment)).items()]


class Container:
    """A running one. ``pid`` is that of its process 1, as seen from here, once its health was asked."""

    def __init__(self, spec: Spec, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.spec = spec
        self.pid = 0
        self._process = process
        self._log = log

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8")

    def execute(self, *command: str, stdin: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """As ``docker exec``: the same namespaces, root, user and variables."""
        user, group = self.spec.user.split(":")
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root", "--wd=/"]
        with (stdin or Path(os.devnull)).open("rb") as file:
            return subprocess.run(
                [*enter, f"--setuid={user}", f"--setgid={group}", "--", "env", "-i", *self.spec.variables(), *command],
                stdin=file,
                capture_output=True,
                text=True,
                check=False,
            )

    def await_health(self) -> None:
        """Run its health check until it passes. Raises SystemExit."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            require(self._process.poll() is None, "it ended:\n" + self.output)
            self.pid = first_child(self._process.pid)
            started = time.monotonic()
            done = self.execute(*self.spec.health)
            if done.returncode == 0:
                print(f"  health: {done.stdout.strip() or 'good'}, asked in {time.monotonic() - started:.1f} s")
                return
            time.sleep(0.2)
        raise SystemExit("the health check never passed:\n" + self.output)

    def ended(self) -> int:
        """The exit code of one that ends by itself. Raises SystemExit."""
        try:
            return self._process.wait(START_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise SystemExit("DOES NOT HOLD: it should have ended by itself") from None

    def stop(self, says: str = '"stopped"') -> None:
        """Its stop signal; the server must end by itself, well, and say so."""
        os.kill(self.pid, signal.Signals[self.spec.stop_signal])
        require(self._process.wait(STOP_TIMEOUT) == 0, f"exit code {self._process.returncode} after the stop signal")
        require(says in self.output, "the server did not stop gracefully")
        print(f"  {self.spec.stop_signal}: stopped gracefully, exit code 0")


@contextmanager
def container(spec: Spec, log: Path, *, own_network: bool = True) -> Iterator[Container]:
    """Start it, on a network of its own or on the one that this process is on; leaves nothing running behind."""
    namespaces = ["--mount", "--pid", "--ipc", *(["--net"] if own_network else [])]
    isolate = ["unshare", *namespaces, "--fork", "--kill-child", "--", "/bin/sh", "-ec", CONTAIN, "sh"]
    mounts = [str(each) for place, source in spec.mounts.items() for each in (source, place)]
    command = [str(spec.root), *spec.user.split(":"), *mounts, "--", "env", "-i", *spec.variables(), *spec.command]
    with log.open("wb") as output:
        process = subprocess.Popen([*isolate, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield Container(spec, process, log)
    finally:
        process.kill()  # --kill-child takes the rest along
        process.wait()


def new_volume(folder: Path, as_in: Path) -> Path:
    """A folder with the owner and mode of another, as engines make a new, named volume."""
    original = as_in.stat()
    folder.mkdir()
    folder.chmod(original.st_mode & 0o777)
    os.chown(folder, original.st_uid, original.st_gid)
    return folder


def first_child(pid: int) -> int:
    """The process that unshare started, which is process 1 of the container."""
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()):
        time.sleep(0.01)
    return int(children[0])


def require(holds: bool, problem: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Raises SystemExit."""
    if not holds:
        raise SystemExit(f"DOES NOT HOLD: {problem}")


def done_well(done: "subprocess.CompletedProcess[str]") -> None:
    """Raises SystemExit with what the command said, unless it ended well."""
    require(done.returncode == 0, f"{done.args[-3:]}: {done.stdout}{done.stderr}")
    print(done.stdout.rstrip())


def show_confinement(running: Container) -> None:
    """The kernel's own word for what it may do."""
    status = Path(f"/proc/{running.pid}/status").read_text(encoding="ascii")
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
    ids = fields["Uid"] + fields["Gid"] + fields["Groups"]
    require("0" not in ids and set(ids) == set(running.spec.user.split(":")), f"its users and groups are {ids}")
    powers = {name: int(values[0], 16) for name, values in fields.items() if name.startswith("Cap")}
    require(not any(powers.values()), f"it has capabilities: {powers}")
    written = running.execute("sh", "-c", "echo > /tmp/x")
    require("Read-only file system" in written.stderr, f"the root can be written: {written.stderr}")
    print(f"  user {running.spec.user}, no capabilities, a read-only root")
