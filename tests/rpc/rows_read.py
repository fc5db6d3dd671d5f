"""Bad requests to Get, Stat, List, Delete, and to what is still to come."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from keystow.v1.storage_pb2 import (
    DeleteRequest,
    GetRequest,
    ListRequest,
    StatRequest,
)
from keystow.v1.tenants_pb2 import GetTenantRequest, ListTenantsRequest
from rpc.rows import BAD_KEYS, BAD_TENANT_IDS, TENANT, Row, invalid, tenant_not_found

_OF_ONE_OBJECT: dict[str, Callable[..., Message]] = {"Get": GetRequest, "Stat": StatRequest, "Delete": DeleteRequest}
_OF_ONE_TENANT: dict[str, Callable[..., Message]] = {"List": ListRequest, "GetTenant": GetTenantRequest}

# Tokens that keystow did not give out for the list of all of TENANT's objects, or of all tenants.
BAD_TOKENS = {
    "not base64": "!!!",
    "not ASCII": "tökén",
    "nothing in it": "AA==",
    "random bytes": base64.urlsafe_b64encode(hashlib.sha256(b"random").digest()).decode(),
    "long": "QUFB" * 1000,
}


def rows() -> Iterator[Row]:
    """All of them."""
    for method, request in _OF_ONE_OBJECT.items():
        yield from _one_object(method, request)
    for method, request in {**_OF_ONE_OBJECT, **_OF_ONE_TENANT}.items():
        yield from _one_tenant(method, request)
    yield invalid(
        "Get: negative length", "Get", GetRequest(tenant_id=TENANT, key="k", length=-1), violations=("length",)
    )
    for case, prefix in BAD_KEYS.items():
        if prefix:  # an empty prefix lists everything
            listing = ListRequest(tenant_id=TENANT, prefix=prefix)
            yield invalid(f"List: prefix: {case}", "List", listing, violations=("prefix",))
    yield from _pages("List", lambda **fields: ListRequest(tenant_id=TENANT, **fields))
    yield from _pages("ListTenants", ListTenantsRequest)


def _one_object(method: str, request: Callable[..., Message]) -> Iterator[Row]:
    for case, key in BAD_KEYS.items():
        message = request(tenant_id=TENANT, key=key)
        yield invalid(f"{method}: key: {case}", method, message, violations=("key",))
    field = "if_version_id" if method == "Delete" else "version_id"
    message = request(tenant_id=TENANT, key="key", **{field: "v" * 257})
    yield invalid(f"{method}: long {field}", method, message, violations=(field,))
    for case, fields in {"no such object": {}, "a version of no object": {field: "v"}}.items():
        message = request(tenant_id=TENANT, key="nothing", **fields)
        yield Row(f"{method}: {case}", method, (message,), grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND", "none")


def _one_tenant(method: str, request: Callable[..., Message]) -> Iterator[Row]:
    key: dict[str, str] = {"key": "key"} if method in _OF_ONE_OBJECT else {}
    for case, tenant in BAD_TENANT_IDS.items():
        message = request(tenant_id=tenant, **key)
        yield invalid(f"{method}: tenant id: {case}", method, message, violations=("tenant_id",))
    yield tenant_not_found(method, request(tenant_id="nobody", **key))


def _pages(method: str, request: Callable[..., Any]) -> Iterator[Row]:
    for size in (-1, 1001, (1 << 31) - 1):
        yield invalid(f"{method}: page_size {size}", method, request(page_size=size), violations=("page_size",))
    for case, token in BAD_TOKENS.items():
        message = request(page_token=token)
        code = grpc.StatusCode.INVALID_ARGUMENT
        yield Row(f"{method}: page token: {case}", method, (message,), code, "PAGE_TOKEN_INVALID", "restart")
