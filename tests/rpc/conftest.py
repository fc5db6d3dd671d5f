"""The server that the tests here talk to."""

from servers.in_process import server, tenant
from servers.postgresql import postgresql

__all__ = ["postgresql", "server", "tenant"]
