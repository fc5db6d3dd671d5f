"""The local keyring under the KeyService contract."""

from datetime import datetime
from pathlib import Path

import pytest

from clock import FakeClock
from contract.key_service import REGION, KeyServiceContract, Subject, unknown_arn
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.adapters.local_keyring import open_local_keyring
from keystow_service.model import KeyArn


class _Desk:
    """Another process's view: an admin of its own on the same file."""

    def __init__(self, admin: KeyringAdmin) -> None:
        self._admin = admin

    async def create(self, *tenants: str) -> KeyArn:
        return self._admin.create(REGION, tenants=tenants).arn

    async def disable(self, arn: KeyArn) -> None:
        self._admin.disable(arn)

    async def enable(self, arn: KeyArn) -> None:
        self._admin.enable(arn)

    async def schedule_deletion(self, arn: KeyArn) -> datetime:
        deletion_time = self._admin.schedule_deletion(arn, days=7).deletion_time
        assert deletion_time is not None
        return deletion_time

    async def cancel_deletion(self, arn: KeyArn) -> None:
        self._admin.cancel_deletion(arn)

    async def rotate(self, arn: KeyArn) -> None:
        self._admin.rotate(arn)


class TestLocalKeyring(KeyServiceContract):
    """With the keyring's own file, changed by an admin while the keyring is open."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        paths = tmp_path / "keyring.json", tmp_path / "root.key"
        clock = FakeClock()
        service = open_local_keyring(*paths, clock)
        return Subject(service, _Desk(KeyringAdmin(*paths, clock)), unknown_arn())
