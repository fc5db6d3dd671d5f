"""What a request to KMS meets on its way, for those who cannot wait for its end."""

from contextvars import ContextVar
from dataclasses import dataclass

from keystow_service.errors import KeystowError


@dataclass(slots=True)
class Trouble:
    """Of one request, however often it is repeated."""

    last: KeystowError | None = None


# Of the request that the running task makes. Set for each shared one; others share one that nobody looks at.
trouble: ContextVar[Trouble] = ContextVar("trouble", default=Trouble())  # noqa: B039 - as just said
