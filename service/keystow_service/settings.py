"""Settings: read once at start from the environment (KEYSTOW_…) over a TOML file, checked by name, then frozen.

Plain values are handed down from here; nothing else reads the environment. With no settings at all, the service is a
single-machine deployment that keeps everything under ``./data``.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariableError

from keystow_service.adapters.audit.keys import AuditFiles
from keystow_service.adapters.posix_files import is_missing
from keystow_service.adapters.tls_files import TlsFiles
from keystow_service.envelope.layout import MAX_SIZE
from keystow_service.errors import KmsKeyArnInvalidError
from keystow_service.model import GIB, MIB, KeyArn
from keystow_service.setting_words import ADDRESS, matching, problem

_PREFIX = "KEYSTOW_"
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns
_PRINCIPAL = re.compile(r"arn:aws:iam::[0-9]{12}:(role|user)/[A-Za-z0-9+=,.@_/-]{1,576}")
# Read by commands of the family, not as settings of the server.
_FOREIGN = frozenset(
    _PREFIX + name
    for name in (
        "ADDRESS",
        "CA_FILE",
        "CLIENT_CERTIFICATE",
        "CLIENT_KEY",
        "CONFIG",
        "FLOE_KATS",
        "INSECURE",
        "SERVER_NAME",
        "TLS",
    )
)

_BUCKET = matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket: 3 to 63 of a-z, 0-9, '.' and '-'")
_PREFIXES = matching(
    r"([A-Za-z0-9_-]+/)*", "names of a-z, A-Z, 0-9, '_' and '-', each with a slash behind it: backups/eu/"
)
_ENDPOINT = matching(r"https?://[^/\s]+.*", "a URL, such as https://s3.example:9000")
Name = Annotated[str, matching(r"[a-z][a-z0-9-]{0,30}", "1 to 31 of a-z, 0-9 and '-', first a-z")]


class SettingsError(Exception):
    """Something is wrong with the settings; ``problems`` says what, by name."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    CONSOLE = "console"


class AuditFailure(StrEnum):
    """What the server does while it cannot write its audit log."""

    ALARM = "alarm"  # goes on, says so, and counts what the log lacks
    REFUSE = "refuse"  # does nothing that it cannot record


class DataCenterSettings(BaseModel):
    """A place for tenants, by two choices: where its objects are, and whose keys they are under.

    With ``bucket`` objects go there, else to ``data_dir``. With ``provider_key_arn`` keys are in AWS KMS, else in the
    keyring in ``data_dir``. A bucket of AWS itself goes with KMS, so that a forgotten line is no choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    display_name: str = ""
    region: Annotated[str, matching(r"[a-z]{2}(-[a-z]+)+-[0-9]", "a region of AWS, such as eu-west-1")]
    bucket: Annotated[str, _BUCKET] | None = None
    # In front of every name in the bucket; S3 names are at most 1,024 bytes.
    prefix: Annotated[str, Field(max_length=50), _PREFIXES] = ""
    provider_key_arn: str | None = None
    # Of S3-compatible stores and of tests; AWS's own are found by region.
    s3_endpoint: Annotated[str, _ENDPOINT] | None = None
    kms_endpoint: Annotated[str, _ENDPOINT] | None = None
    # CRC32C of every part, verified by the store. Off for stores that refuse it.
    s3_checksums: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, needed in (("s3_endpoint", "bucket"), ("prefix", "bucket"), ("kms_endpoint", "provider_key_arn")):
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(f"{name} is set, but {needed} is not")
        if self.provider_key_arn is not None:
            self._check_provider_key(self.provider_key_arn)
        elif self.bucket is not None and self.s3_endpoint is None:
            raise ValueError(
                "provider_key_arn is missing; it is the KMS key of provider-managed tenants. (Without one, keys are in "
                "the local keyring, which is for stores of your own: these are named by s3_endpoint.)"
            )
        return self

    def _check_provider_key(self, text: str) -> None:
        try:
            arn = KeyArn.parse(text)
        except KmsKeyArnInvalidError as error:
            raise ValueError(f"provider_key_arn {error.violations[0].description}") from None
        if arn.region != self.region:
            raise ValueError(f"provider_key_arn is in {arn.region}, but region is {self.region}")


def _this_machine() -> Mapping[str, DataCenterSettings]:
    regions = {"us": "us-east-1", "eu": "eu-west-1", "au": "ap-southeast-2", "ca": "ca-central-1", "uk": "eu-west-2"}
    return {
        name: DataCenterSettings(region=region, display_name=f"{name.upper()} (this machine)")
        for name, region in regions.items()
    }


class Settings(BaseSettings):
    """All of it. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        validate_default=True,
        allow_inf_nan=False,
    )

    listen: Annotated[str, ADDRESS] = "127.0.0.1:50051"
    # Files in PEM form, read again when they change. With a client CA, clients need a certificate that it issued.
    tls_certificate: Path | None = None
    tls_private_key: Path | None = None
    tls_client_ca: Path | None = None
    # Without client certificates anyone who reaches the port reads everything: loopback only, unless this is true.
    listen_insecurely_beyond_loopback: bool = False
    data_dir: Path = Path("data")
    # Part of every KMS encryption context: never change it while objects exist. With a bucket or KMS it has no default.
    deployment_id: Annotated[str, matching(r"[a-z0-9][a-z0-9-]{0,63}", "1 to 64 of a-z, 0-9 and '-', first no '-'")] = (
        "local"
    )
    # sqlite+aiosqlite:///FILE (by default registry.db in data_dir), or postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE.
    registry_url: SecretStr | None = None
    data_centers: dict[Name, DataCenterSettings] = Field(default_factory=lambda: dict(_this_machine()), min_length=1)
    # The IAM role or user as which the service calls AWS KMS. Customers grant their keys to it (GetKeyPolicy).
    kms_principal_arn: str | None = None
    # A key that also serves other tenants may be bound to one: whoever registers tenants can claim it for another.
    allow_broad_key_policies: bool = False

    # How long data keys are used after KMS has last answered; 0: every use asks KMS, and waits up to 2 s.
    lease_bound: Annotated[float, Field(ge=0, le=300)] = 60.0
    # When to ask again in the background: after half of that, unless it is set.
    lease_refresh: Annotated[float, Field(gt=0)] | None = None
    # Requests to KMS that this process sends at most, in each region and for each tenant. Divide the account's quota in
    # a region by the number of processes: https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html
    kms_requests_per_second: Annotated[float, Field(ge=1)] = 2_000.0
    kms_requests_per_second_per_tenant: Annotated[float, Field(ge=1)] = 500.0
    # How often a tenant's own key is asked after that nobody uses, and how often KMS is asked to describe it.
    key_probe_interval: Annotated[float, Field(ge=1)] = 60.0
    key_describe_interval: Annotated[float, Field(ge=1)] = 600.0
    data_key_max_objects: Annotated[int, Field(ge=1)] = 100_000

    max_object_size: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 1_200 * GIB
    parts_in_flight: Annotated[int, Field(ge=1, le=64)] = 4
    # A tar export offers a checkpoint after so many objects or bytes of content, whichever comes first.
    export_checkpoint_objects: Annotated[int, Field(ge=1, le=10_000)] = 500
    export_checkpoint_bytes: Annotated[int, Field(ge=1)] = 64 * MIB
    # Part buffers of all uploads and read-ahead of all downloads together.
    buffer_budget: Annotated[int, Field(ge=64 * MIB)] = 512 * MIB
    admission_timeout: Annotated[float, Field(ge=0)] = 60.0
    # Calls under way at once.
    max_calls: Annotated[int, Field(ge=1)] = 512
    stall_timeout: Annotated[float, Field(gt=0)] = 60.0
    drain_timeout: Annotated[float, Field(ge=0)] = 30.0
    # From one look for unfinished uploads that are too old to the next, on average. 0: only the command reap looks.
    reap_interval: Annotated[float, Field(ge=0, le=86_400)] = 6 * 3600.0

    log_format: LogFormat = LogFormat.JSON

    # Where Prometheus asks for metrics, in clear; they name no tenant. By default nowhere.
    metrics_listen: Annotated[str, ADDRESS] | None = None
    audit: bool = True
    # By default audit/ in data_dir. Replicas may share one directory, and should share both keys.
    audit_dir: Path | None = None
    audit_file_size: Annotated[int, Field(ge=64 * 1024)] = 64 * MIB
    audit_on_failure: AuditFailure = AuditFailure.ALARM
    # Files: an Ed25519 private key in PEM form, 32 random bytes. By default made beside the log.
    audit_signing_key: Path | None = None
    audit_hash_key: Path | None = None

    @field_validator("kms_principal_arn")
    @classmethod
    def _names_one_principal(cls, arn: str | None) -> str | None:
        if arn is not None and _PRINCIPAL.fullmatch(arn) is None:
            raise ValueError(
                "must be the ARN of an IAM role or user, such as arn:aws:iam::111122223333:role/keystow: neither of a "
                "role's session (sts, assumed-role), nor of a whole account"
            )
        return arn

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lease_refresh is not None and self.lease_refresh >= self.lease_bound:
            raise ValueError(
                f"lease_refresh ({self.lease_refresh}) must be less than lease_bound ({self.lease_bound}); without it, "
                "it is half of that"
            )
        elsewhere = any(place.bucket or place.provider_key_arn for place in self.data_centers.values())
        if elsewhere and "deployment_id" not in self.model_fields_set:
            raise ValueError(
                "deployment_id is missing: it is part of every KMS encryption context, so it must be chosen before the "
                'first object, and never change. Name this deployment, for example deployment_id = "prod"'
            )
        if self.kms_principal_arn and not any(place.provider_key_arn for place in self.data_centers.values()):
            raise ValueError("kms_principal_arn is set, but no data centre has provider_key_arn: none uses AWS KMS")
        host = self.listen.rpartition(":")[0]
        if self.tls_certificate and not self.tls_private_key:
            raise ValueError("tls_certificate is set, but tls_private_key is not")
        for name in ("tls_private_key", "tls_client_ca"):
            if getattr(self, name) and not self.tls_certificate:
                raise ValueError(f"{name} is set, but tls_certificate is not")
        if not (self.tls_client_ca or self.listen_insecurely_beyond_loopback or _is_loopback(host)):
            lacking = (
                "TLS alone keeps nobody out: set tls_client_ca" if self.tls_certificate else "there is no TLS: set it"
            )
            raise ValueError(
                f"listen is {self.listen}, which is beyond loopback, and {lacking}, "
                "or set listen_insecurely_beyond_loopback = true if the network protects the port"
            )
        return self

    def store_path(self, data_center: str) -> Path:
        """Of a data centre's objects, unless it has a bucket."""
        return self.data_dir / "stores" / data_center

    @property
    def lease_refresh_in_force(self) -> float:
        """Less than ``lease_bound``, or both are 0."""
        return self.lease_bound / 2 if self.lease_refresh is None else self.lease_refresh

    @property
    def keyring_path(self) -> Path:
        """Of the local keyring; root.key is beside it."""
        return self.data_dir / "keyring" / "keyring.json"

    @property
    def registry_path(self) -> Path:
        """Of the tenants, unless ``registry_url`` is set."""
        return self.data_dir / "registry.db"

    @property
    def registry_is_missing(self) -> bool:
        """Whether no server has made it. A command that only asks must not: opening does."""
        return self.registry_url is None and is_missing(self.registry_path)

    def registry_in_force(self) -> str:
        """The registry's URL: a secret, if it was set."""
        if self.registry_url is not None:
            return self.registry_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.registry_path.absolute()}"

    @property
    def audit_files(self) -> AuditFiles:
        """Where the audit log and its keys are."""
        return AuditFiles(self.audit_dir or self.data_dir / "audit", self.audit_signing_key, self.audit_hash_key)

    @property
    def tls_files(self) -> TlsFiles | None:
        """Where the port's certificates are; None without TLS."""
        if self.tls_certificate is None or self.tls_private_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_private_key, self.tls_client_ca)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment over the file, which is given as keyword arguments."""
        return env_settings, init_settings


def load(config: Path | None) -> Settings:
    """The settings in force. Raises SettingsError."""
    unknown = [
        f"{name}: there is no such setting"
        for name in sorted(os.environ)
        if name.startswith(_PREFIX)
        and name not in _FOREIGN
        and name.removeprefix(_PREFIX).lower().split("__")[0] not in Settings.model_fields
    ]
    if unknown:
        raise SettingsError(unknown)
    try:
        return Settings(**_read(config))
    except ValidationError as error:
        raise SettingsError([problem(each) for each in error.errors()]) from None
    except UnreadableVariableError:
        raise SettingsError([f"{_PREFIX}DATA_CENTERS: is not JSON"]) from None


def _read(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([f"{config}: cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{config}: is not TOML: {error}"]) from None


def _is_loopback(host: str) -> bool:
    """A name other than localhost may lead anywhere, whatever it looks like."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
