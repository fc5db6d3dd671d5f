"""The connection to the service, and how long silence on it is believed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from keystow_client.address import Address
from keystow_client.errors import Recovery, TransportError, from_rpc_error
from keystow_client.tls import Tls

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
# What is in clear because it stays on this machine must not leave it for a proxy of the environment's.
_NO_PROXY = ("grpc.enable_http_proxy", 0)


async def open_channel(address: Address, tls: Tls | None) -> grpc.aio.Channel:
    """A channel for the running event loop, without ``tls`` in clear. Connects with the first call.

    Raises ValueError for files that are not fit for use.
    """
    options: list[tuple[str, int | str]] = list(_OPTIONS)
    if address.is_local:
        options.append(_NO_PROXY)
    if tls is None:
        return grpc.aio.insecure_channel(address.text, options=options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    from keystow_client.tls_files import read_credentials  # noqa: PLC0415 - imports what clear connections do without

    return grpc.aio.secure_channel(address.text, await asyncio.to_thread(read_credentials, tls), options=options)


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
