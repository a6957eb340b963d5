from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import Field

from message_contracts.destination import PacsDestination
from service_runtime.settings import (
    EXIT_CODE,
    BrokerSettings,
    DestinationSettings,
    HealthSettings,
    ServiceSettings,
    SiteSettings,
    StoreSettings,
    WrongSettings,
    load,
    read,
)

POSTGRESQL = "postgresql://someone:hunter2@host/name"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "BROKER_URL", "STORE_URL", "DATA_DIR", "TIME_ZONE"):
        monkeypatch.delenv(f"COUNTERSIGN_{name}", raising=False)


def test_without_any_setting_everything_is_embedded_in_the_data_folder() -> None:
    settings = read(ServiceSettings)

    assert settings.database == f"sqlite:///{settings.data_dir / 'countersign.sqlite3'}"
    assert not settings.via_broker
    assert settings.health_host == "127.0.0.1"


def test_the_data_folder_moves_database_and_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path))

    assert read(BrokerSettings).database == f"sqlite:///{tmp_path}/countersign.sqlite3"
    assert read(StoreSettings).store == f"file:{tmp_path}/instances"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("DATABASE_URL", "mysql://u:hunter2@host/db", "neither sqlite:///FILE nor postgresql://…"),
        ("DATABASE_URL", "hunter2", "not a database URL"),
        ("BROKER_URL", "redis://:hunter2@host", "neither embedded: nor amqp(s)://HOST/VHOST"),
        ("BROKER_URL", "amqp:///hunter2", "neither embedded: nor amqp(s)://HOST/VHOST"),
        ("BROKER_URL", "amqp://hunter2@host/", "a user needs a password"),
        ("TIME_ZONE", "hunter2", "not an IANA time zone"),
        ("TIME_ZONE", "../hunter2", "not an IANA time zone"),
        ("STORE_URL", "ftp://hunter2@host", "neither file:FOLDER nor s3://BUCKET"),
        ("HEALTH_PORT", "hunter2", "Input should be a valid integer"),
        ("HEALTH_PORT", "70000", "less than or equal to 65535"),
        ("LOG_LEVEL", "hunter2", "Input should be"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_not_quoted(
    name: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Everything(ServiceSettings, StoreSettings):
        pass

    monkeypatch.setenv(f"COUNTERSIGN_{name}", value)

    with pytest.raises(WrongSettings) as refused:
        read(Everything)

    text = str(refused.value)
    assert text.startswith(f"COUNTERSIGN_{name}: ")
    assert reason in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("hunter2", "COUNTERSIGN_PACS_DESTINATIONS: not JSON"),
        ('[{"name": "hunter2"', "COUNTERSIGN_PACS_DESTINATIONS: not JSON"),
        (
            '[{"name": "a", "ae_title": "hunter2", "host": "h"}]',
            "COUNTERSIGN_PACS_DESTINATIONS: port: Field required",
        ),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_by_name_and_field(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERSIGN_PACS_DESTINATIONS", value)

    with pytest.raises(WrongSettings) as refused:
        read(DestinationSettings)

    assert str(refused.value) == reason


def test_every_wrong_setting_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_TIME_ZONE", "Mars")
    monkeypatch.setenv("COUNTERSIGN_INSTITUTION_NAME", "x" * 65)

    with pytest.raises(WrongSettings) as refused:
        read(SiteSettings)

    names = [line.partition(":")[0] for line in str(refused.value).splitlines()]
    assert names == ["COUNTERSIGN_TIME_ZONE", "COUNTERSIGN_INSTITUTION_NAME"]


def test_sqlite_with_a_broker_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_BROKER_URL", "amqp://guest:hunter2@host/")

    with pytest.raises(WrongSettings, match="COUNTERSIGN_BROKER_URL: amqp needs PostgreSQL"):
        read(BrokerSettings)


def test_postgresql_goes_with_either_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", POSTGRESQL)
    assert not read(BrokerSettings).via_broker

    monkeypatch.setenv("COUNTERSIGN_BROKER_URL", "amqps://guest:guest@host/vhost")
    assert read(BrokerSettings).via_broker


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_HEALTH_PORT", "")

    assert read(HealthSettings).health_port is None


def test_settings_do_not_show_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", POSTGRESQL)

    assert "hunter2" not in repr(read(ServiceSettings))


def test_a_service_adds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(ServiceSettings):
        quiet_period_s: float = Field(default=60, gt=0, description="Quiet.")

    monkeypatch.setenv("COUNTERSIGN_QUIET_PERIOD_S", "0.5")

    assert read(Own).quiet_period_s == 0.5


def test_every_setting_is_described() -> None:
    class Everything(ServiceSettings, StoreSettings):
        pass

    assert [n for n, field in Everything.model_fields.items() if not field.description] == []


def test_wrong_settings_end_the_process_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COUNTERSIGN_TIME_ZONE", "Mars")

    with pytest.raises(SystemExit) as ended:
        load(SiteSettings)

    assert ended.value.code == EXIT_CODE == 2
    assert capsys.readouterr().err.startswith("COUNTERSIGN_TIME_ZONE: ")


def test_every_attribute_of_a_destination_is_named_where_destinations_are_described() -> None:
    description = DestinationSettings.model_fields["pacs_destinations"].description

    assert {*PacsDestination.model_fields} <= {*re.findall(r"\w+", description or "")}
