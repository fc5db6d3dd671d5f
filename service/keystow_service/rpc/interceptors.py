"""Around every keystow RPC: one status with its reason, one log line, one audit record.

Nothing but the statuses of ``status.py`` leaves here: requests that do not parse become REQUEST_INVALID, exceptions
without a name become INTERNAL with a request id, and the texts of either stay inside. Cancellation is passed on.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog
from grpc_status import rpc_status

from keystow_service.acting import Acting, acting
from keystow_service.audit import KeysUsed
from keystow_service.errors import (
    AuditUnavailableError,
    InternalError,
    KeyRefusal,
    KeystowError,
    KmsThrottledError,
    KmsUnavailableError,
    OverloadedError,
    ProviderCredentialsError,
    ShuttingDownError,
    StreamStalledError,
    Violation,
)
from keystow_service.model import Caller
from keystow_service.ports import AuditLog
from keystow_service.rpc.call import Call, Context, current_call
from keystow_service.rpc.key_uses import KeyUseTally
from keystow_service.rpc.requests import DEPARTURE, reading_one, tolerant
from keystow_service.rpc.reset import reset_call
from keystow_service.rpc.status import STATUS, to_status
from keystow_service.rpc.tls import caller_of

log = structlog.get_logger(__name__)

Identify: TypeAlias = Callable[[Mapping[str, Iterable[bytes]]], Caller]


_SHORT_PATIENCE = 1.0  # seconds
_LEAVE_SOON = (KeyRefusal, KmsUnavailableError, KmsThrottledError, ProviderCredentialsError, StreamStalledError)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """See the module."""

    def __init__(
        self,
        services: frozenset[str],
        audit: AuditLog,
        *,
        max_calls: int,
        stall_timeout: float,
        certificate_required: bool,
    ) -> None:
        """``services`` are the full names of the gRPC services that are ours; of others only the calls are counted.

        A request that is not there after ``stall_timeout`` seconds is not waited for any longer, nor is a client that
        does not read for as long. Where a client certificate is required, it names the caller.
        """
        self._services = services
        self._audit = audit
        self._calls = _CallsUnderWay(max_calls)
        self._others = _CallsUnderWay(max_calls)  # apart, so that health is told when no more calls are taken
        self._stall_timeout = stall_timeout
        self._identify = partial(caller_of, certificate_required=certificate_required)
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of the method, wrapped once."""
        method = str(handler_call_details.method)
        wrapped = self._handlers.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            service, _, name = method.lstrip("/").partition("/")
            if handler is None:
                return None
            if service in self._services:
                wrapped = _wrap(handler, name, self._calls, self._audit, self._stall_timeout, self._identify)
            else:
                wrapped = _count(handler, self._others, self._stall_timeout)
            self._handlers[method] = wrapped
        return wrapped

    @property
    def under_way(self) -> int:
        """How many calls there are."""
        return self._calls.count

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - giving up is not an error here
        """Refuse new calls, and wait for those under way, at most ``timeout`` seconds."""
        self._calls.refusing = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._calls.none.wait(), timeout)


class _CallsUnderWay:
    """How many there are, and whether more are welcome."""

    def __init__(self, limit: int) -> None:
        self.refusing = False
        self.none = asyncio.Event()
        self.none.set()
        self._limit = limit
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1
        self.none.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count:
            self.none.set()

    def admit(self) -> None:
        """Raises ShuttingDownError, OverloadedError."""
        if self.refusing:
            raise ShuttingDownError("The server is shutting down. Try again: another one answers, or this one soon.")
        if self.count > self._limit:
            raise OverloadedError(
                "The server has too many calls under way. Try again later, or with fewer at once.",
                violations=[Violation("max_calls", f"{self._limit} calls are under way")],
                retry_after=1.0,
            )


def _wrap(
    handler: Any, name: str, calls: _CallsUnderWay, audit: AuditLog, stall_timeout: float, identify: Identify
) -> Any:
    one_request = handler.unary_unary or handler.unary_stream
    stream = reading_one(one_request, stall_timeout) if one_request else handler.stream_stream

    async def with_stream(requests: Any, context: Context) -> None:
        await _conduct(name, context, calls, audit, stall_timeout, identify, lambda _: stream(requests, context))

    deserialize = tolerant(handler.request_deserializer, name)
    return grpc.stream_stream_rpc_method_handler(with_stream, deserialize, handler.response_serializer)


def _count(handler: Any, calls: _CallsUnderWay, stall_timeout: float) -> Any:
    """The handler of a service that is not ours: within a limit, and with a request that comes in time, as it is."""
    one_request = handler.unary_unary or handler.unary_stream

    async def stream(requests: Any, context: Context) -> None:
        with calls:
            try:
                calls.admit()
                if one_request:
                    await reading_one(one_request, stall_timeout)(requests, context)
                else:
                    async with aclosing(handler.stream_stream(requests, context)) as responses:
                        async for response in responses:
                            await context.write(response)
            except KeystowError as error:
                await context.abort(STATUS[type(error)], error.message)

    return grpc.stream_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)


async def _conduct(
    name: str,
    context: Context,
    calls: _CallsUnderWay,
    audit: AuditLog,
    stall_timeout: float,
    identify: Identify,
    run: Callable[[Call], Awaitable[Any]],
) -> Any:
    call = Call(name)
    current_call.set(call)
    key_uses = KeyUseTally(lambda uses: audit.record(KeysUsed(call.action(), uses)))
    started = time.monotonic()
    code, failure, begun = "CANCELLED", None, False
    with calls:
        try:
            audit.admit()
            begun = True
            call.caller = identify(context.auth_context())
            acting.set(Acting(call.caller, name, call.request_id, _deadline(context), key_uses))
            calls.admit()
            answer = await run(call)
            code = "OK"
        except KeystowError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - unmapped exceptions would reach the client as text
            if isinstance(error, grpc.aio.InternalError):
                # When a client leaves, grpc.aio cancels its call; but a message under way may fail before that.
                await asyncio.sleep(DEPARTURE)
            failure = InternalError(f"The service failed unexpectedly. Search its log for {call.request_id}.")
            log.error("unexpected_exception", request_id=call.request_id, method=name, **_whereabouts(error))  # noqa: TRY400 - its text may hold secrets
        finally:
            code, reason = (STATUS[type(failure)].name, failure.reason) if failure else (code, "")
            seconds = time.monotonic() - started
            if begun:  # else its refusal is counted
                audit.record(call.ended(code, reason, seconds, context.peer(), key_uses.take()))
            log.info(
                "rpc",
                method=name,
                code=code,
                reason=reason,
                request_id=call.request_id,
                principal=call.caller.principal,
                tenant_id=call.about.get("tenantId", ""),
                bytes_in=call.bytes_in,
                bytes_out=call.bytes_out,
                last_plaintext=call.last_plaintext.isoformat() if call.last_plaintext else "",
                seconds=round(seconds, 6),
            )
        try:
            await audit.durable()
        except AuditUnavailableError as error:
            failure = failure or error
        if failure is None:
            return answer
        try:
            await _end(context, call, failure, stall_timeout)
        finally:
            del failure  # whose traceback holds this frame, and that the call
        return None


async def _end(context: Context, call: Call, failure: KeystowError, stall_timeout: float) -> None:
    """End the call with its status. Raises CancelledError if no status can reach its client.

    The status waits behind what the client has not read yet. If that takes too long the call is reset, and its client
    sees CANCELLED without more. After the key's end what was sent under it is to be gone soon; and who has stalled once
    is not waited for again. A status that cannot be sent also ends in a reset: a client that is still there would wait.
    """
    status = to_status(failure, request_id=call.request_id, about=call.about)
    patience = min(_SHORT_PATIENCE, stall_timeout) if isinstance(failure, _LEAVE_SOON) else stall_timeout
    try:
        async with asyncio.timeout(patience):
            await context.abort_with_status(rpc_status.to_status(status))
    except grpc.aio.AbortError as sent:  # so grpc.aio says it, and keeps that with the call
        sent.__traceback__ = None  # which holds this frame, and that the call
    except TimeoutError:
        _reset(call)
    except grpc.aio.InternalError:
        await asyncio.sleep(DEPARTURE)  # most often the client has left
        _reset(call)


def _reset(call: Call) -> NoReturn:
    if not reset_call():
        log.warning("call_not_reset", request_id=call.request_id)
    raise asyncio.CancelledError from None


def _deadline(context: Context) -> float:
    """In the running loop's time."""
    remaining = context.time_remaining()
    return float("inf") if remaining is None else asyncio.get_running_loop().time() + remaining


def _whereabouts(error: BaseException) -> dict[str, object]:
    """Where it happened, without what it said."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "exception": type(error).__qualname__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
