"""Run the processes of deploy/compose.yaml by hand, for check.sh: with its very users, commands, variables, volumes.

keystow runs in the image that replay.py built; versitygw, of the version that the file names, and PostgreSQL, that of
this machine's packages, stand for their images. All are on one network that has nothing but loopback, where the
services' names lead. Shown: objects stored, read and exported; every process started anew on the same volumes; a
replica; and with S3_SYNC=yes, as here, that what is stored is on the S3 server's disk before it is answered.
"""

# ruff: noqa: S603, S607, T201 - a script that runs the system's commands and tells what it found

import asyncio
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import compose_file
from engine import START_TIMEOUT, Spec, container, done_well, new_volume, require, show_confinement
from servers.postgresql import PostgresqlServer, execute, find_postgresql, postgresql_server

HERE = Path(__file__).parent
EXERCISE = HERE / "exercise.py"
FS_IOC_GETFLAGS, FS_SYNC_FL = 0x80086601, 0x08  # linux/fs.h
SECOND_PORT = "50052"
S3_STOPS = "caught signal"  # versitygw says


class Deployment:
    """The services of the file, and where their volumes are on this machine."""

    def __init__(self, image: Path, base: Path, versitygw: Path, work: Path) -> None:
        """``image`` is image.json, ``base`` the root that stands for foreign images."""
        self._image = image
        self._base = base
        self._versitygw = versitygw
        self._work = work
        variables = {**new_secrets(work), "S3_SYNC": "yes"}
        self._services: dict[str, Any] = compose_file.read([HERE.parent / "compose.yaml"], variables)["services"]
        self._hosts = work / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost {' '.join(self._services)}\n", encoding="utf-8")
        self._volumes = {"keys": self._as_in_image("keys"), "objects": self._as_in_image("objects")}

    def keystow(self, **settings: str) -> Spec:
        """One server, with ``settings`` over the file's."""
        service = self._services["keystow"]
        return Spec.of_image(self._image, service["environment"] | settings, self._mounts(service))

    def s3_volume(self) -> Spec:
        """The process that makes the S3 server's volume ready."""
        service = self._services["s3-volume"]
        spec = Spec.of_image(self._image, service["environment"], self._mounts(service))
        return replace(spec, command=[*service["entrypoint"], *service["command"]])

    def s3(self) -> Spec:
        """The S3 server."""
        service = self._services["s3"]
        root = self._stand_in("s3-image", *(place for _, place in volumes(service)))
        program = root / "usr/local/bin"
        for each in ("versitygw", "docker-entrypoint.sh"):
            shutil.copy(self._versitygw / each, program)
            (program / each).chmod(0o755)
        shutil.copy(shutil.which("busybox") or "/bin/busybox", program / "wget")  # as Alpine has it
        return Spec(
            root=root,
            user=service["user"],
            command=["docker-entrypoint.sh", *service["command"]],
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin", **service["environment"]},
            mounts=self._mounts(service),
            health=health(service),
            stop_signal="SIGTERM",
        )

    @contextmanager
    def postgresql(self) -> Iterator[PostgresqlServer]:
        """PostgreSQL, with the user, password and database that its image makes."""
        service = self._services["postgresql"]
        programs = find_postgresql()
        if programs is None:
            raise SystemExit("there is no PostgreSQL: apt-get install postgresql")
        user, password = service["environment"]["POSTGRES_USER"], service["environment"]["POSTGRES_PASSWORD"]
        with postgresql_server(programs, user=user, password=password, address="127.0.0.1") as server:
            asyncio.run(execute(server, "postgres", f"CREATE DATABASE {user}"))
            probe, *arguments = health(service)
            await_success([programs / probe, *arguments])
            yield server

    def objects(self) -> Path:
        """The bucket's folder."""
        bucket: str = self._services["keystow"]["environment"]["KEYSTOW_DATA_CENTERS__US__BUCKET"]
        return self._volumes["objects"] / bucket

    def _mounts(self, service: Mapping[str, Any]) -> dict[str, Path]:
        return {place: self._volumes[name] for name, place in volumes(service)} | {"/etc/hosts": self._hosts}

    def _as_in_image(self, volume: str) -> Path:
        """New volumes are first mounted over the image's /data."""
        root = Spec.of_image(self._image, {}, {}).root
        return new_volume(self._work / volume, root / "data")

    def _stand_in(self, name: str, *places: str) -> Path:
        """A root over the base, with folders to mount on."""
        folders = [self._work / name / each for each in ("upper", "scratch", "root")]
        for folder in folders:
            folder.mkdir(parents=True)
        upper, scratch, root = folders
        options = f"lowerdir={self._base},upperdir={upper},workdir={scratch}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
        for place in places:
            (root / place.lstrip("/")).mkdir()
        return root


def new_secrets(work: Path) -> dict[str, str]:
    """What deploy/secrets.sh writes beside itself."""
    script = shutil.copy(HERE.parent / "secrets.sh", work)
    subprocess.run([script], check=True, stdout=subprocess.DEVNULL)
    lines = (work / ".env").read_text(encoding="ascii").splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def volumes(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and places."""
    return [(name, place) for name, _, place in (each.partition(":") for each in service["volumes"])]


def health(service: Mapping[str, Any]) -> list[str]:
    """The command, which needs no shell."""
    test: list[str] = service["healthcheck"]["test"]
    require(test[0] == "CMD", f"a health check that is {test[0]}")
    return test[1:]


def await_success(command: list[Any]) -> None:
    """Raises SystemExit."""
    deadline = time.monotonic() + START_TIMEOUT
    while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode != 0:
        require(time.monotonic() < deadline, f"{command}: {done.stdout}{done.stderr}")
        time.sleep(0.2)
    print(f"  health: {done.stdout.strip()}")


def show_synced(bucket: Path) -> None:
    """Every object's file has the attribute with which the file system writes it through."""
    files = [each for each in (bucket / "objects").rglob("*") if each.is_file()]
    require(len(files) > 1, "there are no objects in the bucket")
    for each in files:
        descriptor = os.open(each, os.O_RDONLY)
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8)))
        os.close(descriptor)
        require(bool(flags & FS_SYNC_FL), f"{each.name} is not written through")
    print(f"  {len(files)} objects in the bucket, all written through to the disk")


def main() -> None:
    """Arguments: image.json, the base root, the folder of versitygw, a folder to work in."""
    image, base, versitygw, work = map(Path, sys.argv[1:])
    work.mkdir()
    deployment = Deployment(image, base, versitygw, work)
    s3_spec = deployment.s3()
    logs = {name: work / f"{name}.log" for name in ("s3-volume", "s3", "keystow", "replica")}

    def ready_volume() -> None:
        with container(deployment.s3_volume(), logs["s3-volume"], own_network=False) as made:
            require(made.ended() == 0, f"s3-volume: {made.output}")

    ready_volume()
    print("  the S3 server's volume is made ready; PostgreSQL and the S3 server:")
    with deployment.postgresql() as registry:
        with container(s3_spec, logs["s3"], own_network=False) as s3:
            s3.await_health()
            show_confinement(s3)
            with container(deployment.keystow(), logs["keystow"], own_network=False) as first:
                first.await_health()
                show_confinement(first)
                for action in ("store", "fetch", "export"):
                    done_well(first.execute("python", "-", action, stdin=EXERCISE))
                show_synced(deployment.objects())
                print("  a replica, with the same volume of keys:")
                second_port = deployment.keystow(KEYSTOW_LISTEN=f"[::]:{SECOND_PORT}")
                with container(second_port, logs["replica"], own_network=False) as replica:
                    replica.await_health()
                    done_well(replica.execute("python", "-", "fetch", SECOND_PORT, stdin=EXERCISE))
                    first.stop()
                    done_well(replica.execute("python", "-", "export", SECOND_PORT, stdin=EXERCISE))
                    replica.stop()
            s3.stop(S3_STOPS)
        print("  everything started anew on the same volumes:")
        registry.stop()
        registry.start()
        ready_volume()
        with container(s3_spec, logs["s3"], own_network=False) as s3:
            s3.await_health()
            with container(deployment.keystow(), logs["keystow"], own_network=False) as again:
                again.await_health()
                done_well(again.execute("python", "-", "fetch", stdin=EXERCISE))
                again.stop()
            s3.stop(S3_STOPS)
    print("compose-check: all good")


main()
