"""A real server whose exports have many checkpoints, a tenant on it, and what an uninterrupted export gives."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.content import noise
from keystow_client import Client, ExportCheckpoint, KeyManagement
from servers.keystow import KeystowServer, keystow_server

MIB = 1 << 20
TENANT = "acme"
# In List's order, with a folder that is an object too.
OBJECTS = {
    "a": noise(10),
    "a/b": noise(3 * MIB, seed=1),
    "a/c": b"",
    "b": noise(MIB, seed=2),
    "c/d": noise(MIB + 1, seed=3),
    "c/e": noise(2, seed=4),
    "c/f": noise(2 * MIB, seed=5),
}
MEMBERS = {name.replace("a/", "a%/"): data for name, data in OBJECTS.items()}
# After the first two objects, after three more, and after the last.
_SETTINGS = {"KEYSTOW_EXPORT_CHECKPOINT_OBJECTS": "3", "KEYSTOW_EXPORT_CHECKPOINT_BYTES": str(2 * MIB)}


@dataclass(frozen=True, slots=True)
class Exporting:
    """The server, and TENANT's uninterrupted tar archive."""

    server: KeystowServer
    data_dir: Path
    archive: bytes
    checkpoints: list[ExportCheckpoint]

    @property
    def port(self) -> int:
        """Of the server."""
        return int(self.server.address.rpartition(":")[2])

    def largest(self, tenant: str) -> Path:
        """The file that a tenant's a/b is stored in."""
        stored = (self.data_dir / "stores" / "us" / "objects" / tenant).rglob("*")
        return next(path for path in stored if path.is_file() and path.stat().st_size > 3 * MIB)


@contextmanager
def exporting_server(data_dir: Path) -> Iterator[Exporting]:
    """With TENANT and its OBJECTS."""
    with keystow_server(data_dir, settings=_SETTINGS) as server:
        with Client(server.address) as client:
            registered(client, TENANT)
            buffer, checkpoints = io.BytesIO(), list[ExportCheckpoint]()
            summary = client.export(TENANT, buffer, on_checkpoint=checkpoints.append)
        assert (summary.object_count, summary.complete, len(checkpoints)) == (len(OBJECTS), True, 3)
        yield Exporting(server, data_dir, buffer.getvalue(), checkpoints)


def registered(client: Client, tenant: str) -> None:
    """A tenant with OBJECTS."""
    client.register_tenant(tenant, data_center="us", key_management=KeyManagement.PROVIDER, confirm_permanent=True)
    for key, data in OBJECTS.items():
        client.put(tenant, key, data)


def members_of(archive: bytes) -> dict[str, bytes]:
    """Of a tar archive, without the manifests, by Python's tarfile."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return without_manifests({name: file.read() for name, file in files.items() if file})


def without_manifests(members: dict[str, bytes]) -> dict[str, bytes]:
    """The objects alone."""
    return {name: data for name, data in members.items() if not name.startswith(".keystow/")}
