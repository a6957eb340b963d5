from __future__ import annotations

import pytest

from fhir_bridge.settings import BridgeSettings
from service_runtime.settings import WrongSettings, read


def test_the_base_url_has_no_slash_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_FHIR_URL", "https://ehr.example/fhir/")

    assert read(BridgeSettings).fhir_url == "https://ehr.example/fhir"


@pytest.mark.parametrize(
    "url",
    ["ftp://ehr.example", "ehr.example/fhir", "https://user:word@ehr.example", "https://e?a=b"],
)
def test_what_is_no_base_of_a_fhir_server_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("COUNTERSIGN_FHIR_URL", url)

    with pytest.raises(WrongSettings, match="COUNTERSIGN_FHIR_URL") as refusal:
        read(BridgeSettings)
    assert "word" not in str(refusal.value)


def test_systems_of_patient_ids_are_a_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_FHIR_PATIENT_ID_SYSTEMS", '{"HOSP": "urn:oid:1.2.3"}')

    assert read(BridgeSettings).fhir_patient_id_systems == {"HOSP": "urn:oid:1.2.3"}
