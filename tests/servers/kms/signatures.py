"""Signature Version 4, verified: who sent a request, to which region.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from servers.kms.principals import Directory, Principal
from servers.kms.refusal import Refusal

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/"
    r"aws4_request, ?SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Signed:
    """A request as it arrived. Names of headers are in lower case. All are POSTs to / without a query."""

    headers: Mapping[str, str]
    body: bytes


def authenticate(request: Signed, region: str, directory: Directory) -> Principal:
    """Raises Refusal."""
    match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
    principal = directory.find(match["id"], request.headers.get("x-amz-security-token"))
    if match["region"] != region:
        raise Refusal(
            "InvalidSignatureException", f"Credential should be scoped to a valid region, not '{match['region']}'. "
        )
    if match["service"] != "kms":
        raise Refusal("InvalidSignatureException", "Credential should be scoped to correct service: 'kms'. ")
    if not hmac.compare_digest(_signature(request, match, principal.secret_access_key), match["signature"]):
        raise Refusal(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.",
        )
    return principal


def _signature(request: Signed, claim: re.Match[str], secret: str) -> str:
    headers = "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in claim["headers"].split(";"))
    canonical = f"POST\n/\n\n{headers}\n{claim['headers']}\n{hashlib.sha256(request.body).hexdigest()}"
    scope = [claim["date"], claim["region"], claim["service"], "aws4_request"]
    to_sign = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            request.headers["x-amz-date"],
            "/".join(scope),
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = reduce(_hmac, scope, f"AWS4{secret}".encode())
    return _hmac(key, to_sign).hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
