"""The composition root: the only place that names concrete adapters and puts everything together."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from random import SystemRandom

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from keystow.v1 import storage_pb2, storage_pb2_grpc, tenants_pb2, tenants_pb2_grpc
from keystow_service.adapters.audit.keys import AuditError
from keystow_service.adapters.audit.log import AuditPolicy, NoAuditLog, open_audit_log
from keystow_service.adapters.audit.writer import WriterPolicy
from keystow_service.adapters.cached_registry import CachedRegistry
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.adapters.keyring_loss import refuse_lost_keyring
from keystow_service.adapters.local_keyring import open_local_keyring
from keystow_service.adapters.local_store import open_local_store
from keystow_service.adapters.metrics import MeteredAuditLog, Metrics
from keystow_service.adapters.registry import open_registry
from keystow_service.adapters.root_key import KeyringError
from keystow_service.adapters.tls_files import TlsFilesError, WatchedTlsFiles
from keystow_service.errors import KeystowError
from keystow_service.keys.announced import AnnouncedDeletions
from keystow_service.keys.audited import AuditedKeyService
from keystow_service.keys.checks import KeyChecks
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.health import KeyHealthBook, KeyHealthView
from keystow_service.keys.health_journal import KeyHealthJournal
from keystow_service.keys.key_policy import RenderKeyPolicy
from keystow_service.keys.kms_quota import QuotaPolicy
from keystow_service.keys.kms_turns import KmsTurns
from keystow_service.keys.lease import LeasePolicy
from keystow_service.keys.onboarding import CheckKey, RegisterTenant
from keystow_service.keys.probing import KeyProber, ProbePolicy
from keystow_service.keys.rationed import RationedKeyService
from keystow_service.model import MIB, DataCenter, KeyArn
from keystow_service.objects.budget import BufferBudget
from keystow_service.objects.delete import DeleteObject
from keystow_service.objects.export.export import ExportObjects
from keystow_service.objects.export.run import ExportPolicy
from keystow_service.objects.get import GetObject
from keystow_service.objects.leaving import Leaving
from keystow_service.objects.list import ListObjects
from keystow_service.objects.opening import ObjectOpening
from keystow_service.objects.put import PutObject
from keystow_service.objects.reap import ReapUploads
from keystow_service.objects.reaping import Reaping
from keystow_service.objects.resume import AbortPut, ResumePut
from keystow_service.objects.standing import RepeatedPut
from keystow_service.objects.stat import StatObject
from keystow_service.objects.transfer import PutPolicy, Transfer
from keystow_service.ports import AuditLog, Clock, KeyService, ObjectStore, Site, Sites, TenantRegistry
from keystow_service.rpc.interceptors import CallInterceptor
from keystow_service.rpc.storage import Limits, ObjectUseCases, StorageService
from keystow_service.rpc.tenants import TenantService
from keystow_service.rpc.tls import server_credentials
from keystow_service.settings import AuditFailure, DataCenterSettings, Settings

log = structlog.get_logger(__name__)

_SERVICES = (
    storage_pb2.DESCRIPTOR.services_by_name["StorageService"].full_name,
    tenants_pb2.DESCRIPTOR.services_by_name["TenantService"].full_name,
)
_REGISTRY_CACHE_TTL = 10.0
_AUDIT_RECORDS = 16_384  # in memory, while the disk does not take them
_AUDIT_RESERVE_PER_CALL = 16 * 1024  # bytes of disk: half of it is more than a call's record is long
_KMS_TURN = 5.0  # seconds that a request waits for its share of the KMS quota
_STOP_GRACE = 1.0  # for the answers of calls that have just ended
# A chunk is at most 2 MiB; the rest is for what a newer client may add.
MAX_MESSAGE_SIZE = 4 * MIB + 64 * 1024
# What the transport takes from a stream that is not being read. By probing it finds this by itself and is no faster,
# but stops at no bound: a loaded server then holds tens of MiB more for one Put.
_TRANSPORT_READ_AHEAD = 4 * MIB


class StartError(Exception):
    """The server cannot start; the message says why, for the operator."""


@asynccontextmanager
async def open_server(settings: Settings, clock: Clock | None = None) -> AsyncIterator[str]:
    """Serve while the block runs; gives the address that clients connect to. Then drain, and close everything.

    Raises StartError.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        try:
            tls = WatchedTlsFiles(settings.tls_files) if settings.tls_files else None
            settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            metrics = Metrics()
            audit = MeteredAuditLog(await _open_audit_log(settings, metrics, clock, stack), metrics)
            storage, tenants = await _open_services(settings, audit, metrics, clock, stack)
        except (KeystowError, AuditError, KeyringError, TlsFilesError) as error:
            raise StartError(str(error)) from None
        except OSError as error:
            raise StartError(f"cannot use {error.filename or settings.data_dir}: {error.strerror}") from None
        calls = CallInterceptor(
            frozenset(_SERVICES),
            audit,
            max_calls=settings.max_calls,
            stall_timeout=settings.stall_timeout,
            certificate_required=settings.tls_client_ca is not None,
        )
        metrics.watch("rpcs_under_way", "RPCs that have not ended", lambda: calls.under_way)
        server, health_service = _build(storage, tenants, calls)
        port = _bind(server, settings.listen, tls)
        for service in _SERVICES:
            await health_service.set(service, health_pb2.HealthCheckResponse.SERVING)
        _serve_metrics(settings.metrics_listen, metrics, stack)
        await server.start()
        try:
            yield f"{settings.listen.rpartition(':')[0]}:{port}"
        finally:
            await health_service.enter_graceful_shutdown()
            await calls.drain(settings.drain_timeout)
            await server.stop(_STOP_GRACE)


def open_store(settings: Settings, data_center: str, clock: Clock) -> AbstractAsyncContextManager[ObjectStore]:
    """Where a data centre's objects are. Entering it raises Store… errors."""
    place = settings.data_centers[data_center]
    if place.bucket is None:
        root = settings.store_path(data_center)
        return open_local_store(root, parts_in_flight=settings.parts_in_flight, clock=clock)
    from keystow_service.adapters.s3 import S3Options, open_s3  # noqa: PLC0415 - AWS's client is a third of a start

    options = S3Options(
        bucket=place.bucket,
        region=place.region,
        endpoint=place.s3_endpoint,
        prefix=place.prefix,
        parts_in_flight=settings.parts_in_flight,
        checksums=place.s3_checksums,
        confirm_complete=place.s3_endpoint is not None,
    )
    return open_s3(options)


def _serve_metrics(listen: str | None, metrics: Metrics, stack: AsyncExitStack) -> None:
    if listen is None:
        return
    try:
        port = stack.enter_context(metrics.serving(listen))
    except OSError as error:
        raise StartError(f"cannot listen on {listen} for metrics: {error.strerror}") from None
    log.info("serving_metrics", address=f"{listen.rpartition(':')[0]}:{port}")


async def _open_audit_log(settings: Settings, metrics: Metrics, clock: Clock, stack: AsyncExitStack) -> AuditLog:
    if not settings.audit:
        log.warning("audit_off")
        return NoAuditLog()
    refuse = settings.audit_on_failure is AuditFailure.REFUSE
    policy = AuditPolicy(
        refuse=refuse,
        capacity=max(_AUDIT_RECORDS, 4 * settings.max_calls),
        writer=WriterPolicy(
            file_size=settings.audit_file_size,
            reserve=_AUDIT_RESERVE_PER_CALL * settings.max_calls if refuse else 0,
        ),
    )
    about = {
        "version": version("keystow-service"),
        "deployment": settings.deployment_id,
        "on_failure": settings.audit_on_failure.value,
    }
    audit = await stack.enter_async_context(open_audit_log(settings.audit_files, clock, policy, about))
    metrics.watch("audit_records_unwritten", "Audit records that wait for the disk", lambda: audit.unwritten)
    metrics.watch("audit_records_lost", "Audit records that the log could not take", lambda: audit.lost)
    return audit


async def _open_services(
    settings: Settings, audit: AuditLog, metrics: Metrics, clock: Clock, stack: AsyncExitStack
) -> tuple[StorageService, TenantService]:
    database = await stack.enter_async_context(open_registry(settings.registry_in_force()))
    registry = CachedRegistry(database, ttl=_REGISTRY_CACHE_TTL, clock=clock)
    # Half the interval, so that other replicas know in time that a key is in use here, and do not probe it.
    journal = KeyHealthJournal(registry, database.key_health, audit.record, interval=settings.key_probe_interval / 2)
    key_health = KeyHealthBook(clock, journal.note)
    metrics.watch_keys(key_health.count)
    health_view = KeyHealthView(key_health, database.key_health)
    announced = AnnouncedDeletions(registry, health_view, clock)
    sites = await _open_sites(settings, registry, audit, announced, clock, stack)
    lease_policy = LeasePolicy(
        refresh=settings.lease_refresh_in_force,
        bound=settings.lease_bound,
        data_key_max_objects=settings.data_key_max_objects,
    )
    keys = DataKeys(sites, settings.deployment_id, clock, lease_policy, key_health)
    stack.push_async_callback(keys.aclose)
    await stack.enter_async_context(_in_background(journal.run()))
    probe_policy = ProbePolicy(settings.key_probe_interval, settings.key_describe_interval)
    for site in sites.values():
        prober = KeyProber(site, keys, key_health, database.key_health, clock, probe_policy, SystemRandom().random)
        await stack.enter_async_context(_in_background(prober.run()))
    budget = BufferBudget(settings.buffer_budget, settings.admission_timeout)
    metrics.watch("buffer_bytes", "Buffer memory in use by streams, of buffer_budget", lambda: budget.in_use)
    opening = ObjectOpening(sites, keys)
    put_policy = PutPolicy(settings.deployment_id, settings.max_object_size, settings.parts_in_flight)
    repeated = RepeatedPut(opening)
    leaving = Leaving()
    stack.push_async_callback(leaving.aclose)
    transfer = Transfer(repeated, leaving, clock, put_policy)
    listing = ListObjects(registry, sites)
    export_policy = ExportPolicy(
        checkpoint_objects=settings.export_checkpoint_objects,
        checkpoint_bytes=settings.export_checkpoint_bytes,
        blocks_in_flight=settings.parts_in_flight,
    )
    objects = ObjectUseCases(
        put=PutObject(registry, sites, keys, repeated, budget, clock, transfer, leaving, put_policy),
        resume=ResumePut(registry, sites, keys, repeated, budget, clock, transfer, put_policy),
        abort_put=AbortPut(registry, sites, keys),
        get=GetObject(registry, opening, budget, blocks_in_flight=settings.parts_in_flight),
        export=ExportObjects(registry, listing, opening, keys, budget, export_policy),
        stat=StatObject(registry, opening),
        list=listing,
        delete=DeleteObject(registry, sites),
    )
    if settings.reap_interval:
        reaping = Reaping(ReapUploads(clock), settings.reap_interval)
        for name, site in sites.items():
            await stack.enter_async_context(_in_background(reaping.run(name, site.store)))
    limits = Limits(version("keystow-service"), settings.max_object_size, settings.stall_timeout)
    in_kms = {name for name, place in settings.data_centers.items() if place.provider_key_arn is not None}
    checks = KeyChecks(
        sites, registry, settings.deployment_id, allow_broad_key_policies=settings.allow_broad_key_policies
    )
    tenants = TenantService(
        RegisterTenant(sites, registry, checks, settings.deployment_id, clock),
        CheckKey(sites, checks),
        RenderKeyPolicy(sites, in_kms, settings.kms_principal_arn, settings.deployment_id),
        registry,
        health_view,
        [site.data_center for site in sites.values()],
        lease_policy.revocation_bound,
    )
    return StorageService(objects, limits), tenants


@asynccontextmanager
async def _in_background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run it while the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _open_sites(
    settings: Settings,
    registry: TenantRegistry,
    audit: AuditLog,
    announced: AnnouncedDeletions,
    clock: Clock,
    stack: AsyncExitStack,
) -> Sites:
    """Every data centre: its store and its keys, each on this machine or elsewhere."""
    stores = {
        name: await stack.enter_async_context(open_store(settings, name, clock)) for name in settings.data_centers
    }
    under_keyring = [stores[name] for name, place in settings.data_centers.items() if place.provider_key_arn is None]
    if under_keyring:
        await refuse_lost_keyring(settings.keyring_path, under_keyring, registry)
    quota = QuotaPolicy(settings.kms_requests_per_second, settings.kms_requests_per_second_per_tenant)
    turns = {place.region: KmsTurns(quota, _KMS_TURN) for place in settings.data_centers.values()}
    sites = {}
    for name, place in settings.data_centers.items():
        data_center = DataCenter(name, place.display_name or name, place.region)
        keys, provider_key = await _open_keys(place, settings, audit, turns[place.region], announced, clock, stack)
        sites[name] = Site(data_center, stores[name], keys, provider_key)
    return sites


async def _open_keys(
    place: DataCenterSettings,
    settings: Settings,
    audit: AuditLog,
    turns: KmsTurns,
    announced: AnnouncedDeletions,
    clock: Clock,
    stack: AsyncExitStack,
) -> tuple[KeyService, KeyArn]:
    """And the key of the tenants that bring none."""

    def audited(keys: KeyService) -> KeyService:
        return AuditedKeyService(keys, audit)

    def rationed(keys: KeyService) -> KeyService:
        return RationedKeyService(audited(keys), turns)

    if place.provider_key_arn is not None:
        from keystow_service.adapters.kms import open_kms  # noqa: PLC0415 - as above

        kms = await stack.enter_async_context(
            open_kms(place.region, endpoint=place.kms_endpoint, around=rationed, announced=announced)
        )
        return kms, KeyArn.parse(place.provider_key_arn)
    paths = settings.keyring_path, settings.keyring_path.with_name("root.key")
    admin = KeyringAdmin(*paths, clock)
    provider_key = await asyncio.to_thread(admin.ensure_provider_key, place.region)
    return audited(await asyncio.to_thread(open_local_keyring, *paths, clock)), provider_key


def _build(
    storage: StorageService, tenants: TenantService, calls: CallInterceptor
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    server = grpc.aio.server(
        interceptors=[calls],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
            ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _TRANSPORT_READ_AHEAD),
            # Clients of quiet streams ping every 30 s, to notice a server that vanished; by default that is too often.
            ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
            # Two servers on one port would each get some of the calls.
            ("grpc.so_reuseport", 0),
        ],
    )
    storage_pb2_grpc.add_StorageServiceServicer_to_server(storage, server)
    tenants_pb2_grpc.add_TenantServiceServicer_to_server(tenants, server)
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, health_service


def _bind(server: grpc.aio.Server, listen: str, tls: WatchedTlsFiles | None) -> int:
    try:
        if tls is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, server_credentials(tls.current))
    except RuntimeError:
        port = 0
    if port == 0:
        raise StartError(f"cannot listen on {listen}: the port is in use, or the address is not this machine's")
    return port
