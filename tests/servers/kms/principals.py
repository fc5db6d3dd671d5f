"""Who calls: principals of several AWS accounts, their credentials, and what IAM lets them do.

The cast: the provider, whose role keystow runs as, and a customer's administrator, in an account of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from keystow_service.ports import Clock
from servers.kms.policy import Document, Policy
from servers.kms.refusal import Refusal

_ALL_OF_KMS: Document = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}],
}


@dataclass(frozen=True, slots=True)
class Principal:
    """``arn`` as in a caller's identity; ``role`` is what key policies name, if it is the session of one."""

    account: str
    arn: str
    access_key_id: str
    secret_access_key: str
    role: str | None = None
    session_token: str | None = None  # of temporary credentials
    iam: tuple[Policy, ...] = (Policy.of_identity(_ALL_OF_KMS),)

    @property
    def environment(self) -> Mapping[str, str]:
        """How the AWS clients find these credentials."""
        found = {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret_access_key}
        return found if self.session_token is None else {**found, "AWS_SESSION_TOKEN": self.session_token}


def administrator(account: str) -> Principal:
    """A person who may do everything in an account."""
    return Principal(account, f"arn:aws:iam::{account}:user/admin", f"AKIA{account}", f"secret of {account}")


PROVIDER_ACCOUNT = "444455556666"
PROVIDER_ROLE = f"arn:aws:iam::{PROVIDER_ACCOUNT}:role/keystow"
PROVIDER = Principal(
    PROVIDER_ACCOUNT,
    f"arn:aws:sts::{PROVIDER_ACCOUNT}:assumed-role/keystow/session",
    f"ASIA{PROVIDER_ACCOUNT}",
    "secret of the provider's role",
    PROVIDER_ROLE,
    "session token of the provider's role",
)
CUSTOMER_ACCOUNT = "111122223333"
CUSTOMER = administrator(CUSTOMER_ACCOUNT)


class Directory:
    """Everybody whose credentials are known, by access key id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._principals = {each.access_key_id: each for each in (PROVIDER, CUSTOMER)}
        self._expiry: dict[str, datetime] = {}

    @property
    def everybody(self) -> Mapping[str, Principal]:
        """By access key id."""
        return MappingProxyType(self._principals)

    def add(self, principal: Principal) -> Principal:
        """Or replace the one with this access key id."""
        self._principals[principal.access_key_id] = principal
        return principal

    def remove(self, principal: Principal) -> None:
        """Delete the access key."""
        self._principals.pop(principal.access_key_id, None)

    def expire(self, principal: Principal, at: datetime | None = None) -> None:
        """Temporary credentials end then; now, if no time is given."""
        self._expiry[principal.access_key_id] = at or self._clock.now()

    def renew(self, principal: Principal) -> None:
        """They end no more."""
        self._expiry.pop(principal.access_key_id, None)

    def find(self, access_key_id: str, session_token: str | None) -> Principal:
        """Raises Refusal."""
        principal = self._principals.get(access_key_id)
        if principal is None or principal.session_token != session_token:
            raise Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
        if (expiry := self._expiry.get(access_key_id)) is not None and expiry <= self._clock.now():
            raise Refusal("ExpiredTokenException", "The security token included in the request is expired")
        return principal
