"""What every KeyService must do. An adapter joins with a subject: itself, its owner's side, and what it lacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Protocol
from uuid import uuid4

import pytest

from keystow_service.errors import (
    KeystowError,
    KmsAccessDeniedError,
    KmsKeyDisabledError,
    KmsKeyNotFoundError,
    KmsKeyPendingDeletionError,
    WrappedKeyInvalidError,
)
from keystow_service.model import KeyArn, KeyState
from keystow_service.ports import EncryptionContext, KeyService

REGION = "us-east-1"
ACME: EncryptionContext = {
    "keystow:deployment": "d-1",
    "keystow:purpose": "data-key",
    "keystow:tenant": "acme",
}
OTHER: EncryptionContext = {**ACME, "keystow:tenant": "other"}


class Lack(Enum):
    """What a server that stands for KMS does not do as AWS does."""

    KEY_STATES = auto()  # keys that are disabled or await deletion work
    POLICY = auto()  # a key serves every tenant
    CONTEXT_CUTS = auto()  # names and values of a context are run together
    INCORRECT_KEY = auto()  # another key's ciphertext is answered with AccessDenied


class KeyDesk(Protocol):
    """What a key's owner does, outside the service."""

    async def create(self, *tenants: str) -> KeyArn: ...
    async def disable(self, arn: KeyArn) -> None: ...
    async def enable(self, arn: KeyArn) -> None: ...
    async def schedule_deletion(self, arn: KeyArn) -> datetime:
        """In seven days or more; answers when."""
        ...

    async def cancel_deletion(self, arn: KeyArn) -> None: ...
    async def rotate(self, arn: KeyArn) -> None: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """An adapter under the contract."""

    service: KeyService
    desk: KeyDesk
    unknown: KeyArn  # of no key
    lacks: frozenset[Lack] = frozenset()

    @contextmanager
    def refused(self, kind: type[KeystowError], arn: KeyArn, *, unless: Lack | None = None) -> Iterator[None]:
        """The block must end with this error about this key; where the ability is lacking it must succeed."""
        if unless in self.lacks:
            yield
            return
        with pytest.raises(KeystowError) as caught:
            yield
        error = caught.value
        assert type(error) is kind
        assert error.details["key_arn"] == arn.text
        assert "foreign" not in error.message
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None


def unknown_arn(account: str = "000000000000") -> KeyArn:
    return KeyArn.parse(f"arn:aws:kms:{REGION}:{account}:key/{uuid4()}")


class KeyServiceContract:
    """Subclass it, and provide the fixture ``subject``."""

    async def test_round_trip(self, subject: Subject) -> None:
        """A data key unwraps to what was wrapped, is 32 bytes, and its wrapping does not contain it."""
        arn = await subject.desk.create("acme")
        key = await subject.service.generate_data_key(arn, ACME)
        assert len(key.plaintext) == 32
        assert key.plaintext not in key.wrapped
        assert (await subject.service.unwrap(arn, key.wrapped, ACME)).plaintext == key.plaintext

    async def test_order_of_context(self, subject: Subject) -> None:
        """The encryption context is a set of pairs: their order does not matter."""
        arn = await subject.desk.create("acme")
        key = await subject.service.generate_data_key(arn, ACME)
        backwards = dict(sorted(ACME.items(), reverse=True))
        assert (await subject.service.unwrap(arn, key.wrapped, backwards)).plaintext == key.plaintext

    async def test_keys_are_distinct(self, subject: Subject) -> None:
        """No two data keys are alike, nor their wrappings."""
        arn = await subject.desk.create("acme")
        keys = [await subject.service.generate_data_key(arn, ACME) for _ in range(20)]
        assert len({key.plaintext for key in keys}) == 20
        assert len({key.wrapped for key in keys}) == 20

    @pytest.mark.parametrize(
        "context",
        [
            {**ACME, "keystow:deployment": "d-2"},
            {**ACME, "more": "pairs"},
            {"keystow:tenant": "acme", "keystow:deployment": "d-1"},
        ],
        ids=["other value", "more pairs", "fewer pairs"],
    )
    async def test_wrong_context(self, subject: Subject, context: EncryptionContext) -> None:
        """A data key does not unwrap in another encryption context."""
        arn = await subject.desk.create("acme")
        key = await subject.service.generate_data_key(arn, ACME)
        with subject.refused(WrappedKeyInvalidError, arn):
            await subject.service.unwrap(arn, key.wrapped, context)

    async def test_context_of_the_same_bytes(self, subject: Subject) -> None:
        """Contexts that differ only in where their names and values are cut are different contexts."""
        arn = await subject.desk.create("acme")
        key = await subject.service.generate_data_key(arn, {**ACME, "x": "yz"})
        for context in ({**ACME, "xy": "z"}, {**ACME, "xyz": ""}):
            with subject.refused(WrappedKeyInvalidError, arn, unless=Lack.CONTEXT_CUTS):
                await subject.service.unwrap(arn, key.wrapped, context)

    async def test_ciphertext_of_another_key(self, subject: Subject) -> None:
        """A data key does not unwrap under another KMS key, even of the same tenant."""
        arn, another = await subject.desk.create("acme"), await subject.desk.create("acme")
        key = await subject.service.generate_data_key(arn, ACME)
        kind = KmsAccessDeniedError if Lack.INCORRECT_KEY in subject.lacks else WrappedKeyInvalidError
        with subject.refused(kind, another):
            await subject.service.unwrap(another, key.wrapped, ACME)

    async def test_damaged_ciphertext(self, subject: Subject) -> None:
        """A wrapped data key with its last bit flipped, cut short, or replaced by other bytes does not unwrap."""
        arn = await subject.desk.create("acme")
        wrapped = (await subject.service.generate_data_key(arn, ACME)).wrapped
        for damaged in (wrapped[:-1] + bytes([wrapped[-1] ^ 1]), wrapped[:-1], b"", b"x", bytes(7000)):
            with subject.refused(WrappedKeyInvalidError, arn):
                await subject.service.unwrap(arn, damaged, ACME)

    async def test_disabled_and_enabled(self, subject: Subject) -> None:
        """A disabled key neither wraps nor unwraps; enabled again it does both, at once, old data keys included."""
        arn = await subject.desk.create("acme")
        key = await subject.service.generate_data_key(arn, ACME)
        await subject.desk.disable(arn)
        assert (await subject.service.describe(arn)).state is KeyState.DISABLED
        with subject.refused(KmsKeyDisabledError, arn, unless=Lack.KEY_STATES):
            await subject.service.generate_data_key(arn, ACME)
        with subject.refused(KmsKeyDisabledError, arn, unless=Lack.KEY_STATES):
            await subject.service.unwrap(arn, key.wrapped, ACME)
        await subject.desk.enable(arn)
        assert (await subject.service.unwrap(arn, key.wrapped, ACME)).plaintext == key.plaintext
        await subject.service.generate_data_key(arn, ACME)

    async def test_pending_deletion(self, subject: Subject) -> None:
        """A key that awaits deletion is told apart from a disabled one, with its date; cancelled, it is disabled."""
        arn = await subject.desk.create("acme")
        key = await subject.service.generate_data_key(arn, ACME)
        deletion_time = await subject.desk.schedule_deletion(arn)
        described = await subject.service.describe(arn)
        assert described.state is KeyState.PENDING_DELETION
        assert described.deletion_time is not None
        assert abs((described.deletion_time - deletion_time).total_seconds()) < 1
        with subject.refused(KmsKeyPendingDeletionError, arn, unless=Lack.KEY_STATES):
            await subject.service.generate_data_key(arn, ACME)
        with subject.refused(KmsKeyPendingDeletionError, arn, unless=Lack.KEY_STATES):
            await subject.service.unwrap(arn, key.wrapped, ACME)
        if Lack.KEY_STATES not in subject.lacks:
            with pytest.raises(KmsKeyPendingDeletionError, match=f"{deletion_time:%Y-%m-%d %H:%M} UTC") as caught:
                await subject.service.unwrap(arn, key.wrapped, ACME)
            assert caught.value.details["key_state"] == "PENDING_DELETION"
        await subject.desk.cancel_deletion(arn)
        assert (await subject.service.describe(arn)).state is KeyState.DISABLED
        await subject.desk.enable(arn)
        assert (await subject.service.unwrap(arn, key.wrapped, ACME)).plaintext == key.plaintext

    async def test_unknown_key(self, subject: Subject) -> None:
        """A key that does not exist is not found, by any operation."""
        arn = await subject.desk.create("acme")
        wrapped = (await subject.service.generate_data_key(arn, ACME)).wrapped
        with subject.refused(KmsKeyNotFoundError, subject.unknown):
            await subject.service.generate_data_key(subject.unknown, ACME)
        with subject.refused(KmsKeyNotFoundError, subject.unknown):
            await subject.service.unwrap(subject.unknown, wrapped, ACME)
        with subject.refused(KmsKeyNotFoundError, subject.unknown):
            await subject.service.describe(subject.unknown)

    async def test_another_tenant(self, subject: Subject) -> None:
        """A key confined to a tenant refuses another tenant's context, and none, before it looks at anything else."""
        arn = await subject.desk.create("acme")
        wrapped = (await subject.service.generate_data_key(arn, ACME)).wrapped
        for context in (OTHER, {}):
            with subject.refused(KmsAccessDeniedError, arn, unless=Lack.POLICY):
                await subject.service.generate_data_key(arn, context)
            kind = WrappedKeyInvalidError if Lack.POLICY in subject.lacks else KmsAccessDeniedError
            with subject.refused(kind, arn):
                await subject.service.unwrap(arn, wrapped, context)

    async def test_rotation(self, subject: Subject) -> None:
        """After rotation old data keys unwrap, new ones too, and nothing had to be wrapped again."""
        arn = await subject.desk.create("acme")
        old = await subject.service.generate_data_key(arn, ACME)
        await subject.desk.rotate(arn)
        new = await subject.service.generate_data_key(arn, ACME)
        await subject.desk.rotate(arn)
        assert (await subject.service.unwrap(arn, old.wrapped, ACME)).plaintext == old.plaintext
        assert (await subject.service.unwrap(arn, new.wrapped, ACME)).plaintext == new.plaintext

    async def test_describe(self, subject: Subject) -> None:
        """DescribeKey says what onboarding must know: the key is the customer's, symmetric, enabled."""
        arn = await subject.desk.create("acme")
        described = await subject.service.describe(arn)
        assert described.arn == arn
        assert described.state is KeyState.ENABLED
        assert described.customer_managed
        assert described.symmetric_encryption
        assert described.deletion_time is None
