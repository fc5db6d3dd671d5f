"""Where the service is: HOST:PORT, [IPV6]:PORT or unix:PATH, and whether that is on this machine."""

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Self

_DEFAULT = "127.0.0.1:50051"
_VARIABLE = "KEYSTOW_ADDRESS"

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s:/@,\[\]]+):([0-9]{1,5})")
_MAX_PORT = 65535
_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """As gRPC takes it. A Unix socket has neither host nor port."""

    text: str
    host: str = ""
    port: int = 0

    @classmethod
    def chosen(cls, text: str | None) -> Self:
        """The address given, else $KEYSTOW_ADDRESS, else the service's default on this machine. Raises ValueError."""
        text = text or os.environ.get(_VARIABLE) or _DEFAULT
        if text.startswith(_UNIX):
            return cls(text)
        match = _HOST_AND_PORT.fullmatch(text)
        if match is None or int(match[2]) > _MAX_PORT:
            raise ValueError(f"the address is {text}, and has to be HOST:PORT, [IPV6]:PORT or unix:PATH")
        return cls(text, match[1].strip("[]"), int(match[2]))

    @property
    def is_local(self) -> bool:
        """Whether no network is in between. A name other than localhost may lead anywhere, whatever it looks like."""
        if not self.host:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
