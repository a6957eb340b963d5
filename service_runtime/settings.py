"""Settings: read once in ``main`` from ``COUNTERSIGN_*``, and refused at start when wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from message_contracts.destination import PacsDestination

ENV_PREFIX = "COUNTERSIGN_"
EMBEDDED = "embedded:"
EXIT_CODE = 2
"""Of a process whose settings are wrong: starting it again cannot help."""

S = TypeVar("S", bound="Settings")


class WrongSettings(ValueError):
    """Settings that are refused; one line for each, naming it and never quoting its value."""


def _database_url(value: str) -> str:
    if not value:
        return value
    try:
        backend = make_url(value).get_backend_name()
    except ArgumentError:
        raise ValueError("not a database URL: sqlite:///FILE or postgresql://…") from None
    if backend not in {"sqlite", "postgresql"}:
        raise ValueError("neither sqlite:///FILE nor postgresql://…")
    return value


def _broker_url(value: str) -> str:
    if value == EMBEDDED:
        return value
    parts = urlsplit(value)
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
        raise ValueError(f"neither {EMBEDDED} nor amqp(s)://HOST/VHOST")
    if parts.username is not None and parts.password is None:
        raise ValueError("a user needs a password: amqp(s)://USER:PASSWORD@HOST/VHOST")
    return value


def _store_url(value: str) -> str:
    if value and urlsplit(value).scheme not in {"file", "s3"}:
        raise ValueError("neither file:FOLDER nor s3://BUCKET")
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("not an IANA time zone, such as Europe/Vienna") from None
    return value


TimeZone = Annotated[str, AfterValidator(_time_zone)]
"""The name of an IANA time zone that this machine knows."""


class Settings(BaseSettings):
    """A block of settings; a service's own class inherits from the blocks that it needs."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )


class SiteSettings(Settings):
    """Where this installation stands."""

    data_dir: Path = Field(
        default=Path.home() / ".local/share/countersign",
        description="Folder of everything that is kept: database, instances, reports.",
    )
    time_zone: TimeZone = Field(
        default="UTC",
        description="IANA zone of times that name none, and of times on reports.",
    )
    institution_name: str = Field(
        default="Countersign site",
        min_length=1,
        max_length=64,
        description="Name of the institution, as it stands on reports.",
    )
    default_issuer_of_patient_id: str = Field(
        default="LOCAL",
        min_length=1,
        max_length=64,
        description=(
            "Issuer of Patient ID (0010,0021) of a patient whose instances and whose sending AE "
            "name none."
        ),
    )


class DatabaseSettings(SiteSettings):
    """Which database."""

    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        default="",
        repr=False,
        description=(
            "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; by default SQLite in the "
            "data folder."
        ),
    )

    @property
    def database(self) -> str:
        """The URL of the database, with its default in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'countersign.sqlite3'}"


class BrokerSettings(DatabaseSettings):
    """Which broker."""

    broker_url: Annotated[str, AfterValidator(_broker_url)] = Field(
        default=EMBEDDED,
        repr=False,
        description=(
            "embedded: (messages wait in the database) or amqp(s)://USER:PASSWORD@HOST/VHOST."
        ),
    )

    @property
    def via_broker(self) -> bool:
        """Whether messages travel by RabbitMQ."""
        return self.broker_url != EMBEDDED

    @model_validator(mode="after")
    def _sqlite_has_no_broker(self) -> BrokerSettings:
        if self.via_broker and self.database.startswith("sqlite"):
            raise ValueError(
                f"{ENV_PREFIX}BROKER_URL: amqp needs PostgreSQL; SQLite is one file on one machine "
                f"and cannot be shared by services on several: set {ENV_PREFIX}DATABASE_URL to "
                f"postgresql://… or {ENV_PREFIX}BROKER_URL to {EMBEDDED}"
            )
        return self


class StoreSettings(SiteSettings):
    """Where instances are kept."""

    store_url: Annotated[str, AfterValidator(_store_url)] = Field(
        default="",
        description="file:FOLDER or s3://BUCKET/PREFIX; by default a folder in the data folder.",
    )

    @property
    def store(self) -> str:
        """The URL of the instance store, with its default in the data folder."""
        return self.store_url or f"file:{self.data_dir.absolute() / 'instances'}"


class RetentionSettings(StoreSettings):
    """How long received instances are kept, and how full the store may become."""

    retention_days: float = Field(
        default=30,
        ge=0,
        le=36_500,
        description=(
            "Received instances are purged so many days after their case ended; results, reports "
            "and history stay. 0 keeps them for ever, however full the store is."
        ),
    )
    store_watermark_mib: int | None = Field(
        default=None,
        ge=0,
        description=(
            "While less than this is free where instances are kept, those of ended cases are "
            "purged before their time, the oldest first. By default four times the reserve."
        ),
    )
    store_reserve_mib: int = Field(
        default=512,
        ge=0,
        description=(
            "Instances are refused (status A700) while less than this is free where they are kept."
        ),
    )
    commitment_days: float | None = Field(
        default=None,
        gt=0,
        le=36_500,
        description=(
            "How long an instance that we commit to (DICOM Storage Commitment) is kept at least. "
            "Without it we commit to nothing, and no AE may be given the right to ask."
        ),
    )

    @model_validator(mode="after")
    def _purging_begins_before_refusing(self) -> RetentionSettings:
        watermark_mib = self.store_watermark_mib
        if watermark_mib is not None and watermark_mib < self.store_reserve_mib:
            raise ValueError(
                f"{ENV_PREFIX}STORE_WATERMARK_MIB: less than {ENV_PREFIX}STORE_RESERVE_MIB: "
                "instances would be refused before any is purged"
            )
        return self


class DestinationSettings(Settings):
    """Where results may go: who decides it and who sends it read the same setting."""

    pacs_destinations: tuple[PacsDestination, ...] = Field(
        default=(),
        description=(
            "PACS that results are attached to, a JSON list of objects with name, ae_title, host "
            "and port; and, where not as by default, release (REPORT_READY, DOCTOR_VERIFIED or "
            "AI_ANALYZED), tls, transfer_syntaxes, priority, window, retry, parametric_map and "
            "commitment: see operations.md, Destinations."
        ),
    )

    @model_validator(mode="after")
    def _destinations_are_told_apart(self) -> DestinationSettings:
        names = [destination.name for destination in self.pacs_destinations]
        if len(set(names)) != len(names):
            raise ValueError(f"{ENV_PREFIX}PACS_DESTINATIONS: two destinations have the same name")
        return self


class DicomTlsSettings(Settings):
    """The certificates of DICOM over TLS; who receives and who sends read the same ones."""

    dicom_tls_certificate: Path | None = Field(
        default=None,
        description=(
            "PEM file of this installation's certificate, with the chain behind it. DICOM over TLS "
            "needs it, the key and the authorities; all three are read again when they change."
        ),
    )
    dicom_tls_key: Path | None = Field(
        default=None, description="PEM file of the private key of that certificate."
    )
    dicom_tls_authorities: Path | None = Field(
        default=None,
        description="PEM file of the authorities whose certificates peers must show.",
    )

    @model_validator(mode="after")
    def _tls_files_come_together(self) -> DicomTlsSettings:
        files = {
            "CERTIFICATE": self.dicom_tls_certificate,
            "KEY": self.dicom_tls_key,
            "AUTHORITIES": self.dicom_tls_authorities,
        }
        missing = [name for name, file in files.items() if file is None]
        if missing and len(missing) < len(files):
            raise ValueError(f"{ENV_PREFIX}DICOM_TLS_{missing[0]}: needed where the others are set")
        return self


class HealthSettings(Settings):
    """Where a service answers for its health and its metrics."""

    health_host: str = Field(
        default="127.0.0.1",
        description="Address on which /health/live, /health/ready and /metrics are answered.",
    )
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description=(
            "Port of /health/live, /health/ready and /metrics; none by default, because in the "
            "embedded form the API answers for all services. 0 takes a free port."
        ),
    )


class LogSettings(Settings):
    """What is logged."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line that is written to standard error."
    )


class ServiceSettings(BrokerSettings, HealthSettings, LogSettings):
    """What every service needs."""


def load(settings_class: type[S]) -> S:
    """Return the settings as the environment has them.

    Raises
    ------
    SystemExit
        With code 2, after one line for each setting at fault on standard error.
    """
    try:
        return read(settings_class)
    except WrongSettings as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EXIT_CODE) from None


def read(settings_class: type[S]) -> S:
    """Return the settings as the environment has them.

    Raises
    ------
    WrongSettings
        ``COUNTERSIGN_X: reason``, a line for each setting at fault.
    """
    try:
        return settings_class()
    except SettingsError as error:
        # Raised for the first field whose JSON cannot be parsed; the text names it alone.
        raise WrongSettings(_line(_field_of(error, settings_class), "not JSON")) from None
    except ValidationError as error:
        lines = [
            _line(fault["loc"], fault["msg"])
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise WrongSettings("\n".join(lines)) from None


def _line(location: tuple[int | str, ...], message: str) -> str:
    reason = message.removeprefix("Value error, ")
    # A check over several settings names the one at fault itself.
    if not location:
        return reason
    field, *within = location
    place = "".join(f"{part}: " for part in within if isinstance(part, str))
    return f"{ENV_PREFIX}{str(field).upper()}: {place}{reason}"


def _field_of(error: SettingsError, settings_class: type[Settings]) -> tuple[str, ...]:
    return tuple(name for name in settings_class.model_fields if f'field "{name}"' in str(error))
