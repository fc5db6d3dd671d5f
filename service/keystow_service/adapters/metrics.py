"""What an operator watches, for Prometheus (https://prometheus.io/docs/concepts/data_model/).

The promise: no label is a tenant, a caller, an object or a key, so that neither their names nor their number gets out.
What is counted is what is audited; figures that stand somewhere already are looked up when they are asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from keystow_service.audit import AuditRecord, KeyStateChanged, KmsAttempt, RpcEnded
from keystow_service.errors import AuditUnavailableError
from keystow_service.model import KeyState
from keystow_service.ports import AuditLog

# Seconds. Most calls take milliseconds; a stream takes as long as its client likes.
_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_KMS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = self._counter("rpcs", "RPCs that have ended", "method", "code", "reason")
        self._call_seconds = self._histogram("rpc_seconds", "How long RPCs took", _CALL_BUCKETS, "method")
        self._bytes = self._counter("plaintext_bytes", "Plaintext received from and sent to clients", "direction")
        self._kms = self._counter("kms_requests", "Requests to KMS, each attempt", "operation", "reason")
        self._kms_seconds = self._histogram("kms_seconds", "How long KMS took to answer", _KMS_BUCKETS, "operation")
        self._changes = self._counter(
            "key_state_changes", "Changes of tenants' keys that were first seen here", "state"
        )
        self._refusals = self._counter(
            "audit_refusals", "Calls and requests to KMS that were not begun, for want of an audit log"
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"keystow_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"keystow_{name}", meaning, labels, buckets=buckets, registry=self._registry)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A figure that is looked up each time. ``name`` is without the prefix, with the unit."""
        Gauge(f"keystow_{name}", meaning, registry=self._registry).set_function(value)

    def watch_keys(self, count: Callable[[KeyState], float]) -> None:
        """How many keys are in a state that does not let them be used; looked up each time."""
        refused = Gauge(
            "keystow_refused_keys",
            "Tenants whose key was last seen here in a state that does not let it be used",
            ["state"],
            registry=self._registry,
        )
        for state in KeyState:
            if state is not KeyState.ENABLED:
                refused.labels(state.value).set_function(partial(count, state))

    @contextmanager
    def serving(self, listen: str) -> Iterator[int]:
        """Answer GET /metrics while the block runs; gives the port. ``listen`` is host:port. Raises OSError."""
        host, _, port = listen.rpartition(":")
        server, thread = start_http_server(int(port), host.strip("[]"), self._registry)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def count_refusal(self) -> None:
        """What was not begun, because it could not be audited."""
        self._refusals.inc()

    def count(self, record: AuditRecord) -> None:
        """What was audited."""
        match record:
            case RpcEnded():
                method = record.action.operation
                self._calls.labels(method, record.code, record.reason).inc()
                self._call_seconds.labels(method).observe(record.seconds)
                self._bytes.labels("in").inc(record.bytes_in)
                self._bytes.labels("out").inc(record.bytes_out)
            case KmsAttempt():
                self._kms.labels(record.kms_operation, record.reason).inc()
                self._kms_seconds.labels(record.kms_operation).observe(record.seconds)
            case KeyStateChanged():
                self._changes.labels(record.key_state.value).inc()


class MeteredAuditLog:
    """An AuditLog in front of another: what is recorded is counted, and what is refused."""

    def __init__(self, audit: AuditLog, metrics: Metrics) -> None:
        self._audit = audit
        self._metrics = metrics

    def admit(self) -> None:
        """See ports.AuditLog."""
        try:
            self._audit.admit()
        except AuditUnavailableError:
            self._metrics.count_refusal()
            raise

    def record(self, record: AuditRecord) -> None:
        """See ports.AuditLog."""
        self._metrics.count(record)
        self._audit.record(record)

    async def durable(self) -> None:
        """See ports.AuditLog."""
        await self._audit.durable()
