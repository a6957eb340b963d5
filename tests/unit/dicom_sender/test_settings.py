from __future__ import annotations

import json

import pytest

from dicom_sender.settings import SenderSettings
from message_contracts.case import Release
from service_runtime.settings import WrongSettings, read

ARCHIVE = {"name": "archive", "ae_title": "PACS", "host": "pacs.example", "port": 104}


def test_destinations_are_a_json_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_PACS_DESTINATIONS", json.dumps([ARCHIVE]))

    [destination] = read(SenderSettings).pacs_destinations

    assert (destination.name, destination.port) == ("archive", 104)
    assert destination.release is Release.REPORT_READY


@pytest.mark.parametrize(
    "destinations",
    [
        [ARCHIVE, ARCHIVE],
        [{**ARCHIVE, "port": 0}],
        [{**ARCHIVE, "ae_title": "SEVENTEEN_LETTERS"}],
        [{**ARCHIVE, "release": "SOON"}],
    ],
)
def test_wrong_destinations_are_refused_by_the_name_of_the_setting(
    destinations: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERSIGN_PACS_DESTINATIONS", json.dumps(destinations))

    with pytest.raises(WrongSettings, match="COUNTERSIGN_PACS_DESTINATIONS"):
        read(SenderSettings)


def test_tls_without_a_certificate_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_PACS_DESTINATIONS", json.dumps([{**ARCHIVE, "tls": True}]))

    with pytest.raises(WrongSettings, match="archive: tls needs COUNTERSIGN_DICOM_TLS_CERTIFICATE"):
        read(SenderSettings)


@pytest.mark.parametrize("window", ["20:00", "20:00-20:00", "24:00-06:00", "8-9", "20:00-06:60"])
def test_a_window_that_is_none_is_refused(window: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_PACS_DESTINATIONS", json.dumps([{**ARCHIVE, "window": window}]))

    with pytest.raises(WrongSettings, match="COUNTERSIGN_PACS_DESTINATIONS"):
        read(SenderSettings)
