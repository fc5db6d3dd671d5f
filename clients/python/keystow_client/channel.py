"""The connection to the service, and how long silence on it is believed."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from keystow_client.errors import Recovery, TransportError, from_rpc_error

DEFAULT_ADDRESS = "127.0.0.1:50051"
ADDRESS_VARIABLE = "KEYSTOW_ADDRESS"

_MAX_MESSAGE_SIZE = (4 << 20) + (64 << 10)  # the service's limit, and framing

_OPTIONS = (
    ("grpc.max_send_message_length", _MAX_MESSAGE_SIZE),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_SIZE),
    # While a call runs, a peer that vanished is noticed after 30 + 20 s. Servers cut off who pings more.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # A restarted server is found again within seconds; gRPC's own default may wait for two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    # One layer decides about retries, and it is retry.py.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
)


def resolve_address(address: str | None) -> str:
    """The address given, else $KEYSTOW_ADDRESS, else the service's default on this machine."""
    return address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel for the running event loop. Connects with the first call."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


def silent_for(seconds: float) -> TransportError:
    """The failure of a call on which nothing moved for so long."""
    return TransportError(f"The server was silent for {seconds:g} s.", recovery=Recovery.RETRY)


@asynccontextmanager
async def translated(stall_timeout: float | None) -> AsyncIterator[None]:
    """Turn gRPC's failures into the client's, and silence of ``stall_timeout`` seconds into a TransportError."""
    try:
        async with asyncio.timeout(stall_timeout):
            yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    except TimeoutError:
        raise silent_for(stall_timeout or 0) from None
