"""The server that the tests here talk to."""

from servers.in_process import server, tenant

__all__ = ["server", "tenant"]
