"""When a request to KMS is really sent, for the lease that its answer is to prove.

What waits for its share of the quota, or is sent again, was begun long before: it is the sending that counts.
"""

from collections.abc import Callable
from contextvars import ContextVar

# Called by whoever sends, just before. Set while the running task asks on behalf of a lease.
on_sending: ContextVar[Callable[[], None]] = ContextVar("on_sending", default=lambda: None)
