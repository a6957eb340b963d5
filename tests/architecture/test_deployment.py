"""The compose file and the chart: one container per service, known settings, no secret inside."""

import re
from typing import Any

import pytest
import yaml

from countersign.docs import pages
from countersign.services import SERVICES
from dicom_listener.settings import ListenerSettings
from tests.conftest import CHECKOUT

COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
OURS = [name for name, each in COMPOSE["services"].items() if each["image"] == "countersign"]
CHART = CHECKOUT / "charts" / "countersign"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
FILES = ["docker-compose.yml", "Dockerfile", *(f"charts/countersign/{p}" for p in (
    "values.yaml", "templates/_container.tpl", "templates/services.yaml", "templates/prepare.yaml"
))]  # fmt: skip


def known_settings() -> set[str]:
    return {*re.findall(r"`(COUNTERSIGN_\w+)`", pages()["settings.md"])}


def test_every_service_has_a_container_and_a_deployment() -> None:
    started = {tuple(COMPOSE["services"][name]["command"]) for name in OURS}

    assert {("python", "-m", service) for service in SERVICES} <= started
    assert {*VALUES["services"]} == {*SERVICES}


@pytest.mark.parametrize("file", FILES)
def test_every_setting_that_is_set_is_known(file: str) -> None:
    named = {*re.findall(r"\bCOUNTERSIGN_[A-Z0-9_]+\b", (CHECKOUT / file).read_text())}

    assert named <= known_settings()


def test_no_password_is_written_into_the_compose_file() -> None:
    def values(part: Any) -> list[str]:
        if isinstance(part, dict):
            return [
                str(value)
                for key, value in part.items()
                if re.search(r"PASS|SECRET|_URL$", str(key)) and not isinstance(value, dict)
            ] + [each for value in part.values() for each in values(value)]
        return []

    secret = [value for value in values(COMPOSE) if not value.startswith("file:")]

    assert len(secret) >= 4
    assert all("${" in value and ":?" in value for value in secret)


@pytest.mark.parametrize("name", OURS)
def test_a_container_is_confined_and_waits_for_what_it_needs(name: str) -> None:
    container = COMPOSE["services"][name]

    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert all(
        each["condition"] in {"service_healthy", "service_completed_successfully"}
        for each in container["depends_on"].values()
    )
    for needed, each in container["depends_on"].items():
        check = COMPOSE["services"][needed]["healthcheck"]
        assert (each["condition"] == "service_healthy") == ("test" in check), needed


def test_the_network_is_reached_on_loopback_until_the_site_says_otherwise() -> None:
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", [])]

    assert len(ports) == 4
    assert all(":-127.0.0.1:" in port for port in ports)


def test_dicom_over_tls_is_published_and_finds_its_files() -> None:
    listener, sender = (COMPOSE["services"][name] for name in ("dicom_listener", "dicom_sender"))
    [mount] = {*listener["volumes"]} - {*COMPOSE["services"]["admin_api"]["volumes"]}
    named = re.findall(
        r"^#\s+(COUNTERSIGN_DICOM_TLS_\w+)=(\S+)/",
        (CHECKOUT / "docker-compose.yml").read_text(),
        re.MULTILINE,
    )

    assert listener["ports"][-1].endswith(
        f":{ListenerSettings.model_fields['dicom_tls_port'].default}"
    )
    assert mount.endswith(":ro")
    assert mount in sender["volumes"]
    assert len(named) == 3
    assert {folder for _, folder in named} == {mount.split(":")[-2]}


def test_the_chart_speaks_dicom_over_tls_where_there_is_a_secret() -> None:
    services = (CHART / "templates" / "services.yaml").read_text()
    container = (CHART / "templates" / "_container.tpl").read_text()
    listener = VALUES["services"]["dicom_listener"]
    of_tls = {name for name, each in VALUES["services"].items() if each.get("dicomTls")}
    set_there = re.findall(r"(COUNTERSIGN_DICOM_TLS_\w+)\n  value: (\S+)/[\w.]+\n", container)

    assert of_tls == {"dicom_listener", "dicom_sender"}
    assert str(listener["tlsPort"]) == listener["settings"]["COUNTERSIGN_DICOM_TLS_PORT"]
    assert {name for name, _ in set_there} == {
        f"COUNTERSIGN_DICOM_TLS_{each}" for each in ("CERTIFICATE", "KEY", "AUTHORITIES")
    }
    # Mount, volume, port of the container and of the service hang on the same Secret.
    assert {folder for _, folder in set_there} == {
        re.search(r"name: dicom-tls\n\s+mountPath: (\S+)", container)[1]
    }
    assert services.count("$.Values.dicomTls.existingSecret") == 2
    assert len(re.findall(r"if (?:and )?\$dicomTls\b", services)) == 4


def test_the_image_runs_as_nobody_in_particular() -> None:
    lines = (CHECKOUT / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]

    assert users
    assert users[-1] == "10001"


@pytest.mark.parametrize("template", sorted((CHART / "templates").iterdir()), ids=lambda p: p.name)
def test_a_template_opens_and_closes_its_blocks(template: Any) -> None:
    words = re.findall(r"\{\{-?\s*(\w+)", template.read_text())
    opened = sum(word in {"if", "range", "with", "define"} for word in words)

    assert opened == words.count("end")


@pytest.mark.parametrize("template", sorted((CHART / "templates").iterdir()), ids=lambda p: p.name)
def test_a_template_uses_values_that_have_a_default(template: Any) -> None:
    paths = re.findall(r"\.Values\.([\w.]+)", template.read_text())
    for path in paths:
        value: Any = VALUES
        for key in path.split("."):
            assert key in value, path
            value = value[key]
