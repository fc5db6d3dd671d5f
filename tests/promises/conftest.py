"""The servers that the tests here talk to."""

from servers.moto import moto

__all__ = ["moto"]
