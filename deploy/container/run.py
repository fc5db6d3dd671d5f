"""Run what replay.py built as a container engine would, for check.sh, and hold it to what docs/operations.md says.

Namespaces of its own (mounts, processes, network), the root read-only with no /tmp, the image's numeric user without
any capability, its variables and no others; only the volume is writable. Every process is ended by its id, and all of
them with this one.
"""

# ruff: noqa: INP001, S603, T201 - a script that runs the system's commands and tells what it found

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PERMISSION = {"KEYSTOW_LISTEN_INSECURELY_BEYOND_LOOPBACK": "true"}
# $1 the root, $2 the volume's folder here, $3 its path there, $4 and $5 user and group; then the command.
CONTAIN = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
mount -t proc proc "$1/proc" && mount --bind "$2" "$1$3"
ip link set lo up
root=$1 user=$4 group=$5
shift 5
exec chroot "$root" setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs --inh-caps=-all \
    --bounding-set=-all -- "$@"
"""
EXIT_USAGE = 2  # of keystow-service
START_TIMEOUT = 60
STOP_TIMEOUT = 60


class Container:
    """A running one. ``pid`` is that of its process 1, as seen from here."""

    def __init__(self, image: Mapping[str, Any], process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._image = image
        self._environment = environment(image, PERMISSION)
        self._process = process
        self._log = log
        self.pid = 0

    def execute(self, *command: str, stdin: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """As ``docker exec``: the same namespaces, root, user and variables."""
        user, group = self._image["USER"].split(":")
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root", "--wd=/"]
        with (stdin or Path(os.devnull)).open("rb") as file:
            return subprocess.run(
                [*enter, f"--setuid={user}", f"--setgid={group}", "--", "env", "-i", *self._environment, *command],
                stdin=file,
                capture_output=True,
                text=True,
                check=False,
            )

    def await_health(self) -> None:
        """Run the image's health check until it passes. Raises SystemExit."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            require(self._process.poll() is None, "the server ended:\n" + self._log.read_text(encoding="utf-8"))
            self.pid = first_child(self._process.pid)
            started = time.monotonic()
            done = self.execute(*self._image["HEALTHCHECK"])
            if done.returncode == 0:
                print(f"  health: {done.stdout.strip()}, asked in {time.monotonic() - started:.1f} s")
                return
            time.sleep(0.2)
        raise SystemExit("the health check never passed:\n" + self._log.read_text(encoding="utf-8"))

    def refused(self) -> str:
        """What one says that ends by itself because its settings are wrong."""
        try:
            code = self._process.wait(START_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise SystemExit("DOES NOT HOLD: it should have ended by itself") from None
        require(code == EXIT_USAGE, f"exit code {code}")
        return self._log.read_text(encoding="utf-8")

    def stop(self) -> None:
        """The image's stop signal; the server must end by itself, well."""
        os.kill(self.pid, signal.Signals[self._image["STOPSIGNAL"]])
        require(self._process.wait(STOP_TIMEOUT) == 0, f"exit code {self._process.returncode} after the stop signal")
        require('"stopped"' in self._log.read_text(encoding="utf-8"), "the server did not stop gracefully")
        print(f"  {self._image['STOPSIGNAL']}: stopped gracefully, exit code 0")


@contextmanager
def container(image: Mapping[str, Any], volume: Path, settings: Mapping[str, str]) -> Iterator[Container]:
    """Start the image's command with its root read-only; leaves nothing running behind."""
    (place,) = image["VOLUME"]
    command = ["env", "-i", *environment(image, settings), *image["ENTRYPOINT"], *image["CMD"]]
    isolate = [
        "unshare",
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--fork",
        "--kill-child",
        "--",
        "/bin/sh",
        "-ec",
        CONTAIN,
    ]
    arguments = ["sh", image["root"], str(volume), place, *image["USER"].split(":"), *command]
    log = volume.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen([*isolate, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield Container(image, process, log)
    finally:
        process.kill()  # --kill-child takes the rest along
        process.wait()


def environment(image: Mapping[str, Any], settings: Mapping[str, str]) -> list[str]:
    """NAME=value, as the image and the one who runs it say; HOME as Docker sets it for a user without a name."""
    return [f"{name}={value}" for name, value in ({"HOME": "/"} | image["environment"] | dict(settings)).items()]


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


def show_confinement(running: Container, image: Mapping[str, Any]) -> None:
    """The kernel's own word for what it may do."""
    status = Path(f"/proc/{running.pid}/status").read_text(encoding="ascii")
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
    ids = fields["Uid"] + fields["Gid"] + fields["Groups"]
    require("0" not in ids and set(ids) == set(image["USER"].split(":")), f"its users and groups are {ids}")
    powers = {name: int(values[0], 16) for name, values in fields.items() if name.startswith("Cap")}
    require(not any(powers.values()), f"it has capabilities: {powers}")
    written = running.execute("python", "-c", "open('/tmp/x', 'w')")
    require("Read-only file system" in written.stderr, f"the root can be written: {written.stderr}")
    print(f"  user {image['USER']}, no capabilities, a read-only root")


def main() -> None:
    """Arguments: image.json, a folder for the volume, which is made as the image has it."""
    image = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    volume = Path(sys.argv[2])
    exercise = Path(__file__).with_name("exercise.py")
    as_built = Path(image["root"] + image["VOLUME"][0]).stat()
    volume.mkdir()
    volume.chmod(as_built.st_mode & 0o777)
    os.chown(volume, as_built.st_uid, as_built.st_gid)  # as engines do for a new, named volume

    with container(image, volume, {}) as mute:
        require("listen_insecurely_beyond_loopback" in mute.refused(), "it does not say what it lacks")
    print("  without permission to listen in clear it does not start, and says so")
    with container(image, volume, PERMISSION) as running:
        running.await_health()
        show_confinement(running, image)
        version = running.execute("python", "-c", "import importlib.metadata as m; print(m.version('keystow-service'))")
        require(version.stdout.strip() == image["LABEL"]["org.opencontainers.image.version"], "the label's version")
        done_well(running.execute("python", "-", "store", stdin=exercise))
        done_well(running.execute("python", "-", "fetch", stdin=exercise))
        running.stop()
    print("  another one on the same volume:")
    with container(image, volume, PERMISSION) as running:
        running.await_health()
        done_well(running.execute("python", "-", "fetch", stdin=exercise))
        done_well(running.execute("keystow-service", "keys", "create", "--region=us-east-1", "--tenant=globex"))
        running.stop()


main()
