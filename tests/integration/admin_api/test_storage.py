from __future__ import annotations

import pytest

from message_contracts.case import CaseStatus
from tests.integration.admin_api.conftest import Hospital
from tests.integration.dicom_listener.kept_studies import KeptStudies, days_ago


def test_an_admin_reads_how_full_the_store_is(hospital: Hospital) -> None:
    kept = KeptStudies(hospital.database, hospital.store)
    kept.add("1.1", ended_at=days_ago(3000))
    kept.add("1.2", status=CaseStatus.AI_ANALYZED)

    answer = hospital.hire("admin").get("/api/v1/storage")

    assert answer.status_code == 200
    report = answer.json()
    assert report["kept"] == {"instances": 4, "size_bytes": 20}
    assert report["purgeable"]["instances"] == 2
    assert report["retention_days"] == 30
    assert 0 < report["free_bytes"] <= report["total_bytes"]
    assert (report["watermark_bytes"], report["reserve_bytes"]) == (4096, 1024)


@pytest.mark.parametrize("role", ["doctor", "pharmacist"])
def test_others_do_not(hospital: Hospital, role: str) -> None:
    answer = hospital.hire(role).get("/api/v1/storage")

    assert answer.status_code == 403
    assert answer.json()["type"].endswith("wrong-role")
