"""Every request that arrived, and what CloudTrail shows of them in each account.

https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference.html,
https://docs.aws.amazon.com/kms/latest/developerguide/logging-using-cloudtrail.html.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from servers.kms.principals import Principal

_READ_ONLY = frozenset({"GenerateDataKey", "Decrypt", "DescribeKey", "GetKeyPolicy", "ListAliases"})


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the log."""

    time: datetime
    region: str
    operation: str
    principal: Principal | None  # None for credentials that nobody knows
    key_id: str  # as the request has it
    key_arn: str  # of the key that it is about; empty if there is none
    context: Mapping[str, str]
    request_id: str
    answer: str  # "OK", the error's code, "" for a connection that broke first, or "nonsense"
    message: str | None = None
    shared_event_id: str = field(default_factory=lambda: str(uuid4()))


def cloudtrail(requests: Iterable[Request], account: str) -> Mapping[str, Any]:
    """A CloudTrail log file of one account.

    Calls to another account's key stand in both accounts' logs, save those that were denied: they are the caller's.
    """
    return {"Records": [_event(each, account) for each in requests if account in _recipients(each)]}


def write_cloudtrail(requests: Iterable[Request], account: str, path: Path) -> None:
    """As CloudTrail delivers it, but not compressed."""
    path.write_text(json.dumps(cloudtrail(requests, account), indent=2), encoding="utf-8")


def _owner(request: Request) -> str:
    return request.key_arn.split(":")[4] if request.key_arn else ""


def _recipients(request: Request) -> set[str]:
    if request.principal is None or request.answer in ("", "nonsense"):
        return set()
    denied = request.answer == "AccessDeniedException"
    return {request.principal.account} if denied else {request.principal.account, _owner(request)} - {""}


def _event(request: Request, account: str) -> Mapping[str, Any]:
    event = {
        "eventVersion": "1.11",
        "userIdentity": _identity(request, account),
        "eventTime": f"{request.time:%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": "kms.amazonaws.com",
        "eventName": request.operation,
        "awsRegion": request.region,
        "sourceIPAddress": "127.0.0.1",
        "userAgent": "keystow tests",
        "requestParameters": _parameters(request),
        "responseElements": None,
        "requestID": request.request_id,
        "eventID": str(uuid4()),
        "readOnly": request.operation in _READ_ONLY,
        "resources": _resources(request),
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": account,
        "eventCategory": "Management",
    }
    if len(_recipients(request)) > 1:
        event["sharedEventID"] = request.shared_event_id
    if request.answer != "OK":
        # CloudTrail's name for this one differs from the API's.
        denied = request.answer == "AccessDeniedException"
        event["errorCode"] = "AccessDenied" if denied else request.answer
        if request.message is not None:
            event["errorMessage"] = request.message
    return event


def _identity(request: Request, account: str) -> Mapping[str, str]:
    principal = request.principal
    assert principal is not None
    if principal.account != account:  # another account learns no more
        return {"type": "AWSAccount", "principalId": principal.access_key_id, "accountId": principal.account}
    return {
        "type": "IAMUser" if principal.role is None else "AssumedRole",
        "principalId": principal.access_key_id,
        "arn": principal.arn,
        "accountId": principal.account,
        "accessKeyId": principal.access_key_id,
    }


def _parameters(request: Request) -> Mapping[str, Any]:
    parameters: dict[str, Any] = {"keyId": request.key_id} if request.key_id else {}
    if request.context:
        parameters["encryptionContext"] = dict(request.context)
    if request.operation == "GenerateDataKey":
        parameters["keySpec"] = "AES_256"
    elif request.operation == "Decrypt":
        parameters["encryptionAlgorithm"] = "SYMMETRIC_DEFAULT"
    return parameters


def _resources(request: Request) -> list[Mapping[str, str]]:
    if not request.key_arn:
        return []
    return [{"accountId": _owner(request), "type": "AWS::KMS::Key", "ARN": request.key_arn}]
