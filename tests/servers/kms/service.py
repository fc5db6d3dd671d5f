"""A KMS that says what AWS says, where moto does not: the state behind the servers, and what tests turn.

One instance is all of AWS: several accounts (principals.py), and an endpoint for each region. Tests in its process turn
keys (keys.py), what goes wrong (faults.py) and propagation (lag.py), and read the log (log.py); customers may also act
over the wire, with their own credentials (administration.py). server.py runs it in the test's loop, process.py apart.
Not here: grants, tags, automatic rotation, limits of size and number.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from keystow_service.adapters.clock import SystemClock
from keystow_service.ports import Clock
from servers.kms import administration, use
from servers.kms.access import authorize, hidden
from servers.kms.documents import tenant_policy
from servers.kms.faults import Drop, Fault, Faults
from servers.kms.inventory import Inventory
from servers.kms.keys import Key, Kind
from servers.kms.lag import Lag
from servers.kms.log import Request
from servers.kms.policy import Document
from servers.kms.principals import CUSTOMER_ACCOUNT, Directory, Principal
from servers.kms.refusal import Refusal, not_found
from servers.kms.signatures import Signed, authenticate
from servers.kms.states import State

_SYMMETRIC = Kind()
_USES = {"GenerateDataKey": use.generate_data_key, "Decrypt": use.decrypt}


class Switch(Protocol):
    """Of a region's server: while it is stopped, connections are refused."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes over the wire. ``body`` None: the connection breaks."""

    status: int
    request_id: str
    body: bytes | None


@dataclass(slots=True)
class _Call:
    """One request, and what was found out about it."""

    region: str
    operation: str
    body: Mapping[str, Any]
    request_id: str
    principal: Principal | None = None
    key: Key | None = None

    @property
    def context(self) -> Mapping[str, str]:
        context: Mapping[str, str] = self.body.get("EncryptionContext", {})
        return context

    @property
    def key_id(self) -> str:
        return str(self.body.get("KeyId", self.body.get("TargetKeyId", "")))


class FaithfulKms:
    """See the module. ``server.py`` runs it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.endpoints: dict[str, str] = {}  # by region
        self.servers: dict[str, Switch] = {}  # likewise
        self.principals = Directory(self.clock)
        self.lag = Lag(self.clock)
        self.faults = Faults(self.clock)
        self.requests: list[Request] = []
        # For a key of another account that does not exist AWS may answer as for one that may not be used.
        self.hides_missing_keys = False
        self._inventory = Inventory(self.clock, self.lag)

    def __getitem__(self, arn: str) -> Key:
        return self._inventory[arn]

    def create_key(
        self,
        *tenants: str,
        region: str = "us-east-1",
        account: str = CUSTOMER_ACCOUNT,
        kind: Kind = _SYMMETRIC,
        policy: Document | str | None = None,
    ) -> Key:
        """A key that the provider's role may use for these tenants, unless another ``policy`` is given."""
        return self._inventory.create(region, account, kind, policy or tenant_policy(account, *tenants))

    def replicate(self, key: Key, region: str) -> Key:
        """A multi-Region key, in another region, too, under the same policy."""
        return self._inventory.replicate(key, region, key.standing.policy.text)

    async def handle(self, region: str, signed: Signed) -> Answer:
        """What is answered to a request that arrived at a region's endpoint."""
        operation = signed.headers.get("x-amz-target", "").removeprefix("TrentService.")
        call = _Call(region, operation, {}, str(uuid4()))
        with suppress(Refusal):
            call.body = _parsed(signed.body)
        await self.faults.wait(operation, call.key_id)
        fault = self.faults.take(operation)
        if fault is not None and fault.drop is Drop.REQUEST:
            self._note(call, "")
            return Answer(0, call.request_id, None)
        try:
            content, refusal = self._answer(call, signed, fault), None
        except Refusal as error:
            content, refusal = {}, error
        if fault is not None and fault.body is not None:
            self._note(call, "nonsense")
            return Answer(fault.status, call.request_id, fault.body)
        if refusal is None:
            self._note(call, "OK")
        else:
            # AWS spells it "Message" for errors that are not in its service model.
            name = "Message" if refusal.code == "AccessDeniedException" else "message"
            content = {"__type": refusal.code} | ({} if refusal.message is None else {name: refusal.message})
            self._note(call, refusal.code, refusal.message)
        dropped = fault is not None and fault.drop is Drop.ANSWER
        status = 200 if refusal is None else refusal.status
        return Answer(status, call.request_id, None if dropped else json.dumps(content).encode())

    def _note(self, call: _Call, answer: str, message: str | None = None) -> None:
        self.requests.append(
            Request(
                self.clock.now(),
                call.region,
                call.operation,
                call.principal,
                call.key_id,
                "" if call.key is None else call.key.arn,
                dict(call.context),
                call.request_id,
                answer,
                message,
            )
        )

    def _answer(self, call: _Call, signed: Signed, fault: Fault | None) -> dict[str, Any]:
        """Raises Refusal. In the order of AWS: the caller, throttling, existence, permission, usage and state."""
        call.body = _parsed(signed.body)
        call.principal = authenticate(signed, call.region, self.principals)
        if fault is not None:
            fault.raise_refusal()
            if fault.body is not None:
                return {}
        self.faults.throttle()
        if call.operation == "CreateKey":
            return administration.create_key(self._inventory, call.region, call.principal.account, call.body)
        if call.operation == "DeleteAlias":
            self._inventory.forget(call.body["AliasName"], call.region, call.principal.account)
            return {}
        call.key = self._permitted_key(call, call.principal)
        if call.operation in _USES:
            return _USES[call.operation](call.key, call.body)
        return administration.administer(self._inventory, call.operation, call.key, call.body)

    def _permitted_key(self, call: _Call, principal: Principal) -> Key:
        try:
            key = self._inventory.find(call.key_id, call.region, principal.account)
            standing = key.seen if call.operation in _USES else key.standing
            if key.state_of(standing) is State.DELETED:
                raise not_found(key.arn)
        except Refusal as refusal:
            elsewhere = f":{principal.account}:" not in call.key_id and call.key_id.startswith("arn:")
            if refusal.code == "NotFoundException" and elsewhere and self.hides_missing_keys:
                raise hidden(principal, call.operation) from None
            raise
        call.key = key
        authorize(principal, call.operation, key, standing.policy, call.context)
        return key


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Refusal("SerializationException", None)
    return content
