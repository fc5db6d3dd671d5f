"""Servers that the adapters' tests share."""

from servers.postgresql import postgresql

__all__ = ["postgresql"]
