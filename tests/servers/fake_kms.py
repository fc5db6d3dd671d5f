"""A small AWS KMS over HTTP that says what AWS says, where moto does not.

It speaks JSON 1.1 to the real AWS clients: GenerateDataKey, Decrypt and DescribeKey, with key states, encryption
contexts, a key policy conditioned on the tenant, AWS's own texts, and failures on request. Tests turn its keys by
methods, in the same process and at once; ``requests`` is its CloudTrail.
"""

import asyncio
import functools
import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from servers.listener import listening

ANY_TENANT = "*"
ACCOUNT = "111122223333"
PRINCIPAL = "arn:aws:sts::444455556666:assumed-role/keystow/session"

_REGION = re.compile(r"Credential=[^/]+/\d{8}/([a-z0-9-]+)/kms/aws4_request")
_NONCE_SIZE = 12

# What AWS answers for a key in each state (https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html).
_STATE_ANSWERS = MappingProxyType(
    {
        "Disabled": ("DisabledException", "{arn} is disabled."),
        "PendingDeletion": ("KMSInvalidStateException", "{arn} is pending deletion."),
        "PendingReplicaDeletion": ("KMSInvalidStateException", "{arn} is pending replica deletion."),
        "PendingImport": ("KMSInvalidStateException", "{arn} is pending import."),
        "Unavailable": ("KMSInvalidStateException", "{arn} is unavailable."),
        "Creating": ("KMSInvalidStateException", "{arn} is creating."),
        "Updating": ("KMSInvalidStateException", "{arn} is updating."),
    }
)


@dataclass(slots=True)
class FakeKey:
    """A key, open to the tests."""

    arn: str
    tenants: frozenset[str]  # that the policy's condition on keystow:tenant lists; ANY_TENANT: no condition
    state: str = "Enabled"
    deletion_date: datetime | None = None
    usage: str = "ENCRYPT_DECRYPT"
    state_code: str | None = None  # the other of the two exceptions that a key pending deletion may answer with
    denied: set[str] = field(default_factory=set)  # operations that the policy does not grant
    material: list[bytes] = field(default_factory=lambda: [os.urandom(32)])


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the log. ``answer`` is "OK", the error's code, or "" for a dropped connection."""

    operation: str
    key_id: str
    context: Mapping[str, str]
    request_id: str
    answer: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What the next request meets. Without a code: its connection is dropped, unanswered; or gets just this body."""

    code: str = ""
    message: str = "foreign text"
    status: int = 400
    body: bytes | None = None


class Refusal(Exception):  # noqa: N818 - an answer of the protocol
    """An error answer."""

    def __init__(self, code: str, message: str | None, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.status = status


class FakeKms:
    """The state behind the server, and what tests turn."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.requests: list[Request] = []
        self.silent: set[str] = set()  # operations that take the request and never answer
        self.unanswered = asyncio.Event()  # one of them has arrived
        self._keys: dict[str, FakeKey] = {}
        self._faults: list[Fault] = []

    def create_key(self, *tenants: str, region: str = "us-east-1") -> FakeKey:
        key = FakeKey(f"arn:aws:kms:{region}:{ACCOUNT}:key/{uuid4()}", frozenset(tenants))
        self._keys[key.arn] = key
        return key

    def __getitem__(self, arn: str) -> FakeKey:
        return self._keys[arn]

    def delete(self, arn: str) -> None:
        """As after the waiting time of a scheduled deletion."""
        del self._keys[arn]

    def fail_next(self, fault: Fault, times: int = 1) -> None:
        """The next requests meet this fault, after those already asked for."""
        self._faults += [fault] * times

    def answer(self, operation: str, region: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises Refusal. In the order of AWS: existence, permission, usage and state, ciphertext."""
        arn = body["KeyId"]
        if arn.split(":")[3] != region:
            raise Refusal("NotFoundException", f"Invalid arn {region}")
        key = self._keys.get(arn)
        if key is None:
            raise Refusal("NotFoundException", f"Key '{arn}' does not exist")
        context = body.get("EncryptionContext", {})
        permitted = (
            operation == "DescribeKey" or ANY_TENANT in key.tenants or context.get("keystow:tenant") in key.tenants
        )
        if not permitted or operation in key.denied:
            raise Refusal(
                "AccessDeniedException",
                f"User: {PRINCIPAL} is not authorized to perform: kms:{operation} on resource: {arn} because no "
                f"resource-based policy allows the kms:{operation} action",
            )
        return _OPERATIONS[operation](key, body)

    async def handle(self, operation: str, region: str, body: Mapping[str, Any]) -> tuple[int, str, bytes] | None:
        """Status, request id and body of the answer; None for a dropped connection."""
        if operation in self.silent:
            self.unanswered.set()
            await asyncio.Event().wait()
        request_id = str(uuid4())
        fault = self._faults.pop(0) if self._faults else None
        status, code = 200, "OK"
        if fault is not None and fault.body is not None:
            self.requests.append(Request(operation, body["KeyId"], {}, request_id, "nonsense"))
            return fault.status, request_id, fault.body
        try:
            content = self.answer(operation, region, body) if fault is None else _meet(fault)
        except Refusal as refusal:
            # AWS spells it "Message" for errors that are not in its service model.
            name = "Message" if refusal.code == "AccessDeniedException" else "message"
            content = {"__type": refusal.code} | ({} if refusal.message is None else {name: refusal.message})
            status, code = refusal.status, refusal.code
        context = dict(body.get("EncryptionContext", {}))
        self.requests.append(Request(operation, body["KeyId"], context, request_id, code))
        return (status, request_id, json.dumps(content).encode()) if code else None


def _meet(fault: Fault) -> dict[str, Any]:
    raise Refusal(fault.code, fault.message, fault.status)


def _usable(key: FakeKey) -> None:
    if key.usage != "ENCRYPT_DECRYPT":
        raise Refusal("InvalidKeyUsageException", f"{key.arn} key usage is {key.usage} which is not valid.")
    if key.state != "Enabled":
        code, text = _STATE_ANSWERS[key.state]
        raise Refusal(key.state_code or code, text.format(arn=key.arn))


def _generate_data_key(key: FakeKey, body: Mapping[str, Any]) -> dict[str, Any]:
    _usable(key)
    if body.get("KeySpec") != "AES_256":
        raise Refusal("ValidationException", "Please specify either number of bytes or key spec.")
    plaintext, nonce = os.urandom(32), os.urandom(_NONCE_SIZE)
    sealed = AESGCM(key.material[-1]).encrypt(nonce, plaintext, _aad(body))
    blob = UUID(key.arn.rpartition("/")[2]).bytes + bytes([len(key.material)]) + nonce + sealed
    return {"KeyId": key.arn, "Plaintext": b64encode(plaintext).decode(), "CiphertextBlob": b64encode(blob).decode()}


def _decrypt(key: FakeKey, body: Mapping[str, Any]) -> dict[str, Any]:
    blob = b64decode(body["CiphertextBlob"])
    uuid, version, rest = blob[:16], blob[16:17], blob[17:]
    if len(rest) < _NONCE_SIZE or not 1 <= version[0] <= len(key.material):
        raise Refusal("InvalidCiphertextException", None)
    if uuid != UUID(key.arn.rpartition("/")[2]).bytes:
        text = "The key ID in the request does not identify a CMK that can perform this operation."
        raise Refusal("IncorrectKeyException", text)
    _usable(key)
    try:
        plaintext = AESGCM(key.material[version[0] - 1]).decrypt(rest[:_NONCE_SIZE], rest[_NONCE_SIZE:], _aad(body))
    except InvalidTag:
        raise Refusal("InvalidCiphertextException", None) from None
    return {"KeyId": key.arn, "Plaintext": b64encode(plaintext).decode()}


def _describe_key(key: FakeKey, _body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {
        "AWSAccountId": ACCOUNT,
        "KeyId": key.arn.rpartition("/")[2],
        "Arn": key.arn,
        "Enabled": key.state == "Enabled",
        "KeyState": key.state,
        "KeyUsage": key.usage,
        "KeySpec": "SYMMETRIC_DEFAULT" if key.usage == "ENCRYPT_DECRYPT" else "RSA_2048",
        "KeyManager": "CUSTOMER",
        "Origin": "AWS_KMS",
        "MultiRegion": False,
    }
    if key.deletion_date is not None:
        metadata["DeletionDate"] = key.deletion_date.timestamp()
    return {"KeyMetadata": metadata}


_OPERATIONS: Mapping[str, Callable[[FakeKey, Mapping[str, Any]], dict[str, Any]]] = MappingProxyType(
    {"GenerateDataKey": _generate_data_key, "Decrypt": _decrypt, "DescribeKey": _describe_key}
)


def _aad(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body.get("EncryptionContext", {}), sort_keys=True).encode()


@asynccontextmanager
async def fake_kms() -> AsyncIterator[FakeKms]:
    """A running server on a free loopback port, without keys."""
    kms = FakeKms()
    async with listening(functools.partial(_serve, kms)) as port:
        kms.endpoint = f"http://127.0.0.1:{port}"
        yield kms


async def _serve(kms: FakeKms, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        operation = headers["x-amz-target"].removeprefix("TrentService.")
        signed = _REGION.search(headers["authorization"])
        answer = await kms.handle(operation, "" if signed is None else signed[1], body)
        if answer is None:
            return
        status, request_id, content = answer
        writer.write(
            f"HTTP/1.1 {status} -\r\nx-amzn-RequestId: {request_id}\r\nContent-Type: application/x-amz-json-1.1\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
