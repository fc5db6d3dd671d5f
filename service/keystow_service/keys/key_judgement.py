"""What DescribeKey says of a key, judged: may a customer's backups be under it, and what should he know of it?"""

from collections.abc import Iterator

from keystow_service.keys.key_report import Outcome
from keystow_service.model import KeyDescription, KeyOrigin, KeyState

_STATES = {
    KeyState.DISABLED: "It is disabled: enable it.",
    KeyState.PENDING_IMPORT: "It has no key material: import it.",
    KeyState.UNAVAILABLE: "Its key store is disconnected: connect it.",
}
_STORES = {
    KeyOrigin.AWS_CLOUDHSM: "It is in an AWS CloudHSM key store: while that is disconnected, nothing can be backed up "
    "or restored.",
    KeyOrigin.EXTERNAL_KEY_STORE: "It is in an external key store: while that does not answer, nothing can be backed "
    "up or restored.",
    KeyOrigin.OTHER: "Where its key material comes from is not known to this release of the service.",
}


def judge(key: KeyDescription) -> tuple[Outcome, str]:
    """FAILED, WARNING or PASSED, and why."""
    if faults := list(_faults(key)):
        return Outcome.FAILED, f"The key cannot be used. {' '.join(faults)}"
    if remarks := list(_remarks(key)):
        return Outcome.WARNING, f"The key can be used. {' '.join(remarks)}"
    return Outcome.PASSED, "The key is customer managed, symmetric and enabled."


def _faults(key: KeyDescription) -> Iterator[str]:
    if not key.customer_managed:
        yield "It is managed by AWS, so that you can neither grant nor disable it: create a customer managed key."
    if not key.symmetric_encryption:
        yield "It is not for symmetric encryption: create one of type Symmetric for Encrypt and decrypt."
    if key.state is KeyState.PENDING_DELETION:
        date = f" on {key.deletion_time:%Y-%m-%d}" if key.deletion_time else ""
        yield f"It is scheduled for deletion{date}: cancel that and enable it, or use another key."
    elif key.transitioning:
        yield "It cannot be used at the moment, because it is just being made or changed: try again."
    elif key.state is not KeyState.ENABLED:
        yield _STATES[key.state]


def _remarks(key: KeyDescription) -> Iterator[str]:
    if key.origin is KeyOrigin.EXTERNAL:
        yield "Its key material was imported: keep a copy, because AWS cannot bring it back after it was deleted."
        if key.valid_to is not None:
            yield (
                f"It expires on {key.valid_to:%Y-%m-%d %H:%M} UTC: from then on nothing can be backed up or restored, "
                "until the same material is imported again."
            )
    elif key.origin is not KeyOrigin.AWS_KMS:
        yield _STORES[key.origin]
    if key.multi_region:
        yield (
            "It is a multi-Region key. The service uses it in this region alone, but to be sure that nobody reads the "
            "backups any more, each of its replicas must be disabled."
        )
