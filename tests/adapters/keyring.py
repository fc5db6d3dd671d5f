"""A local keyring for tests: its files in a folder, an admin, and servers on it, under a clock of their own."""

from pathlib import Path

from clock import FakeClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.adapters.local_keyring import LocalKeyring, open_local_keyring
from keystow_service.model import KeyArn

DAY = 86_400.0
REGION = "us-east-1"


class Deployment:
    """One machine's keyring."""

    def __init__(self, folder: Path) -> None:
        self.keyring = folder / "keyring" / "keyring.json"
        self.root_key = folder / "keyring" / "root.key"
        self.clock = FakeClock()
        self.admin = KeyringAdmin(self.keyring, self.root_key, self.clock)

    def serve(self) -> LocalKeyring:
        return open_local_keyring(self.keyring, self.root_key, self.clock)

    def create(self, *tenants: str) -> KeyArn:
        return self.admin.create(REGION, tenants=tenants or ("acme",)).arn
