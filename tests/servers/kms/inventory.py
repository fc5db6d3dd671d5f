"""All keys and aliases, of every region and account."""

import re
from collections.abc import Iterator
from uuid import uuid4

from keystow_service.ports import Clock
from servers.kms.keys import Key, Kind
from servers.kms.lag import Lag
from servers.kms.material import Material
from servers.kms.policy import Document
from servers.kms.refusal import Refusal, invalid, not_found
from servers.kms.states import State

_ARN = re.compile(r"arn:aws:kms:([a-z0-9-]+):(\d{12}):((?:key|alias)/.+)")
_ALIAS = re.compile(r"alias/[a-zA-Z0-9/_-]+")


class Inventory:
    """See the module."""

    def __init__(self, clock: Clock, lag: Lag) -> None:
        self._clock = clock
        self._lag = lag
        self._keys: dict[str, Key] = {}
        self._aliases: dict[str, Key] = {}  # by ARN

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def __getitem__(self, arn: str) -> Key:
        return self._keys[arn]

    def create(self, region: str, account: str, kind: Kind, policy: Document | str) -> Key:
        """A new key."""
        key_id = f"mrk-{uuid4().hex}" if kind.multi_region else str(uuid4())
        return self._add(region, account, key_id, kind, policy, Material(key_id))

    def replicate(self, primary: Key, region: str, policy: Document | str) -> Key:
        """The same key in another region, with a policy and a state of its own."""
        if not primary.kind.multi_region or primary.primary is not None:
            raise Refusal("UnsupportedOperationException", f"{primary.arn} is not a multi-Region primary key.")
        standing = self._keys.get(_arn(region, primary.account, f"key/{primary.key_id}"))
        if standing is not None and standing.state is not State.DELETED:
            raise Refusal("AlreadyExistsException", f"Key {standing.arn} already exists")
        replica = self._add(region, primary.account, primary.key_id, primary.kind, policy, primary.material)
        replica.primary = primary
        primary.replicas[region] = replica
        return replica

    def _add(
        self, region: str, account: str, key_id: str, kind: Kind, policy: Document | str, material: Material
    ) -> Key:
        arn = _arn(region, account, f"key/{key_id}")
        key = Key(arn, kind, policy, material, self._clock, self._lag)
        self._keys[arn] = key
        return key

    def name(self, alias: str, key: Key, *, again: bool) -> None:
        """Point an alias to a key: a new one, or ``again``."""
        if not _ALIAS.fullmatch(alias) or alias.startswith("alias/aws/"):
            raise invalid("Alias must start with the prefix alias/, and not with alias/aws/")
        arn = _arn(key.region, key.account, alias)
        if again and arn not in self._aliases:
            raise Refusal("NotFoundException", f"Alias {arn} is not found.")
        if not again and arn in self._aliases:
            raise Refusal("AlreadyExistsException", f"An alias with the name {arn} already exists")
        self._aliases[arn] = key

    def forget(self, alias: str, region: str, account: str) -> None:
        """Delete an alias."""
        arn = _arn(region, account, alias)
        if self._aliases.pop(arn, None) is None:
            raise Refusal("NotFoundException", f"Alias {arn} is not found.")

    def find(self, key_id: str, region: str, account: str) -> Key:
        """By key id, alias name, or the ARN of either, as a caller of this account names it in this region.

        A key that is deleted is found, too: whoever asks must look at its state.
        """
        if not isinstance(key_id, str) or not key_id:
            raise invalid("1 validation error detected: Value at 'keyId' failed to satisfy constraint")
        arn = key_id
        if not key_id.startswith("arn:"):
            arn = _arn(region, account, key_id if key_id.startswith("alias/") else f"key/{key_id}")
        match = _ARN.fullmatch(arn)
        if match is None or match[1] != region:
            raise Refusal("NotFoundException", f"Invalid arn {region}")
        if match[3].startswith("alias/"):
            if arn not in self._aliases:
                raise Refusal("NotFoundException", f"Alias {arn} is not found.")
            return self._aliases[arn]
        if arn not in self._keys:
            raise not_found(arn)
        return self._keys[arn]


def _arn(region: str, account: str, resource: str) -> str:
    return f"arn:aws:kms:{region}:{account}:{resource}"
