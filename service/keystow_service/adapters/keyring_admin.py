"""Changes to the local keyring: what an administrator does in the KMS console, and the service at its first start.

The promise: the same life cycle as AWS KMS keys have (https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html),
and a change is durable, and seen by every running server, when the method returns. All methods block and raise
KeyringError, whose message is for the operator.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from keystow_service.adapters.keyring_file import KeyRecord, Keyring, KeyringFile
from keystow_service.adapters.root_key import KeyringError, load_root_key
from keystow_service.model import KeyArn, KeyState
from keystow_service.ports import Clock

MIN_WAITING_DAYS = 7  # as AWS
MAX_WAITING_DAYS = 30

ANY_TENANT = "*"

ACCOUNT = "000000000000"  # in the ARNs of all local keys, and of no AWS account
_MATERIAL_SIZE = 32
_TENANT = re.compile(r"[a-z][a-z0-9-]{2,62}|\*")


class KeyringAdmin:
    """Creates keys and changes their states."""

    def __init__(self, path: Path, root_key_path: Path, clock: Clock) -> None:
        self._file = KeyringFile(path, root_key_path, clock)
        self._clock = clock

    def list(self) -> Sequence[KeyRecord]:
        """All keys that exist, oldest first."""
        _, keyring = self._file.load()
        return [key for key in keyring.values() if not key.expired(self._clock.now())]

    def get(self, arn: KeyArn) -> KeyRecord:
        """One that exists. Raises KeyringError."""
        for key in self.list():
            if key.arn == arn:
                return key
        raise self._unknown(arn)

    def create(self, region: str, *, tenants: Sequence[str], description: str = "") -> KeyRecord:
        """A new enabled key that serves these tenants, and "*" any. Makes the keyring on first use.

        Raises KmsKeyArnInvalidError (the region is none) and ValueError (a tenant id is none), with nothing made.
        """
        arn = _new_arn(region)
        if not tenants or not all(map(_TENANT.fullmatch, tenants)):
            raise ValueError(
                "A key serves at least one tenant: 3 to 63 of a-z, 0-9 and '-', starting with a letter; or *"
            )
        self._file.create_if_missing()
        return self._file.update(self._creation(arn, tuple(sorted(set(tenants))), description, provider=False))

    def ensure_provider_key(self, region: str) -> KeyArn:
        """The service's own key of the region, for tenants that bring none; made at the first call of any process.

        One that is disabled or awaits deletion is still the one. Makes the keyring on first use.
        """
        self._file.create_if_missing()
        create = self._creation(_new_arn(region), (ANY_TENANT,), f"keystow provider key of {region}", provider=True)

        def ensure(keyring: Keyring) -> tuple[Keyring, KeyRecord]:
            for key in keyring.values():
                if key.provider and key.arn.region == region:
                    return keyring, key
            return create(keyring)

        return self._file.update(ensure).arn

    def disable(self, arn: KeyArn) -> KeyRecord:
        """Nothing can be wrapped or unwrapped with the key any more, until it is enabled."""
        return self._change(arn, lambda key: replace(_not_pending(key), state=KeyState.DISABLED))

    def enable(self, arn: KeyArn) -> KeyRecord:
        """The key works again."""
        return self._change(arn, lambda key: replace(_not_pending(key), state=KeyState.ENABLED))

    def schedule_deletion(self, arn: KeyArn, *, days: int) -> KeyRecord:
        """From now on the key does not work; after 7 to 30 days its material is destroyed, for good.

        Raises ValueError: another number of days.
        """
        if not MIN_WAITING_DAYS <= days <= MAX_WAITING_DAYS:
            raise ValueError(f"A key waits {MIN_WAITING_DAYS} to {MAX_WAITING_DAYS} days for its deletion.")
        deletion_time = self._clock.now() + timedelta(days=days)
        return self._change(
            arn, lambda key: replace(_not_pending(key), state=KeyState.PENDING_DELETION, deletion_time=deletion_time)
        )

    def cancel_deletion(self, arn: KeyArn) -> KeyRecord:
        """The key stays, disabled (as AWS leaves it) until it is enabled."""

        def cancel(key: KeyRecord) -> KeyRecord:
            if key.state is not KeyState.PENDING_DELETION:
                raise KeyringError(f"{key.arn} is not scheduled for deletion: it is {key.state.value}.")
            return replace(key, state=KeyState.DISABLED, deletion_time=None)

        return self._change(arn, cancel)

    def rotate(self, arn: KeyArn) -> KeyRecord:
        """New data keys are wrapped with new material; the old material goes on unwrapping the old ones."""
        root_key = load_root_key(self._file.root_key_path)

        def rotate(key: KeyRecord) -> KeyRecord:
            if _not_pending(key).state is not KeyState.ENABLED:
                raise KeyringError(f"{key.arn} is {key.state.value}. Enable it first.")
            version = len(key.material) + 1
            return replace(key, material=(*key.material, root_key.wrap(os.urandom(_MATERIAL_SIZE), key.arn, version)))

        return self._change(arn, rotate)

    def _creation(
        self, arn: KeyArn, tenants: tuple[str, ...], description: str, *, provider: bool
    ) -> Callable[[Keyring], tuple[Keyring, KeyRecord]]:
        key = KeyRecord(
            arn=arn,
            state=KeyState.ENABLED,
            tenants=tenants,
            description=description,
            create_time=self._clock.now(),
            material=(load_root_key(self._file.root_key_path).wrap(os.urandom(_MATERIAL_SIZE), arn, 1),),
            provider=provider,
        )
        return lambda keyring: ({**keyring, arn.text: key}, key)

    def _change(self, arn: KeyArn, change: Callable[[KeyRecord], KeyRecord]) -> KeyRecord:
        def apply(keyring: Keyring) -> tuple[Keyring, KeyRecord]:
            if arn.text not in keyring:
                raise self._unknown(arn)
            changed = change(keyring[arn.text])
            return {**keyring, arn.text: changed}, changed

        return self._file.update(apply)

    def _unknown(self, arn: KeyArn) -> KeyringError:
        return KeyringError(f"There is no key {arn} in {self._file.path}.")


def _new_arn(region: str) -> KeyArn:
    """Raises KmsKeyArnInvalidError."""
    return KeyArn.parse(f"arn:aws:kms:{region}:{ACCOUNT}:key/{uuid4()}")


def _not_pending(key: KeyRecord) -> KeyRecord:
    if key.state is KeyState.PENDING_DELETION:
        raise KeyringError(
            f"{key.arn} is scheduled for deletion on {key.deletion_time:%Y-%m-%d %H:%M} UTC. Cancel that first."
        )
    return key
