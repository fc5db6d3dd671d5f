"""What happens to a request to KMS on its way, for the lease that its answer is to prove.

When it is really sent: what waits for its share of the quota, or is sent again, was begun long before, and it is the
sending that counts. And that KMS refused it: the lease ends then, and not once the refusal has been looked into.
"""

from collections.abc import Callable
from contextvars import ContextVar

from keystow_service.errors import KeyRefusal

# Set while the running task asks on behalf of a lease. Called by whoever sends, just before; and by whoever does more
# about a refusal than to raise it, before that.
on_sending: ContextVar[Callable[[], None]] = ContextVar("on_sending", default=lambda: None)
on_refusal: ContextVar[Callable[[KeyRefusal], None]] = ContextVar("on_refusal", default=lambda _: None)
