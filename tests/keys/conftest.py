"""The world that the tests of leases turn."""

from keys.world import world

__all__ = ["world"]
