"""The worlds that the tests of leases and of onboarding turn."""

from keys.trying import trying
from keys.world import world

__all__ = ["trying", "world"]
