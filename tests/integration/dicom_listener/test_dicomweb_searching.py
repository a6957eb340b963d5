"""QIDO-RS on both databases, asked as viewers ask."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.dicom_listener.dicomweb_studies import FIRST, OHIF, SECOND, THIRD, studies_of


def test_a_viewer_s_list_of_studies(doctor: httpx.Client) -> None:
    answer = doctor.get(
        "/studies", params=OHIF | {"includefield": "00081030,00080060", "StudyDate": "20260101-"}
    )

    first = answer.json()[0]
    assert studies_of(answer) == [THIRD, SECOND, FIRST]
    assert first["00081030"]["Value"] == ["Грудь"]
    assert first["00080005"]["Value"] == ["ISO_IR 192"]
    assert "00080030" in answer.json()[1]
    assert "Value" not in answer.json()[1]["00080030"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"PatientName": "quil*"}, [SECOND, FIRST]),
        ({"PatientName": "QUILL^ADA"}, [FIRST]),
        ({"PatientName": "鵞筆*"}, [FIRST]),
        ({"PatientName": "Quill"}, []),
        ({"00100010": "?orn"}, [THIRD]),
        ({"PatientID": "Q%2"}, [SECOND]),
        ({"PatientID": "Q%*"}, [SECOND]),
        ({"AccessionNumber": "A_1"}, [FIRST]),
        ({"AccessionNumber": "A?1"}, [FIRST]),
        ({"StudyDate": "20260704"}, [FIRST]),
        ({"StudyDate": "20260704-20260705"}, [SECOND, FIRST]),
        ({"StudyDate": "20260705-"}, [THIRD, SECOND]),
        ({"StudyTime": "0800-1159", "StudyDate": "2026-"}, None),
        ({"StudyTime": "0800-1159", "StudyDate": "20260101-"}, [THIRD]),
        ({"StudyTime": "12", "StudyDate": "20260101-"}, [FIRST]),
        ({"ModalitiesInStudy": "MR,XA"}, [SECOND]),
        ({"ModalitiesInStudy": "CT", "StudyDate": "20260101-"}, [THIRD, FIRST]),
        ({"StudyInstanceUID": f"{FIRST},{THIRD}"}, [THIRD, FIRST]),
        ({"StudyInstanceUID": f"{FIRST}\\{THIRD}"}, [THIRD, FIRST]),
        ({"StudyDescription": "*hor*"}, [FIRST]),
        ({"ReferringPhysicianName": "rei*"}, [FIRST]),
        ({"StudyID": "S1"}, [FIRST]),
        ({"limit": "1", "StudyDate": "20260101-"}, [THIRD]),
        ({"limit": "1", "offset": "2", "StudyDate": "20260101-"}, [FIRST]),
        ({"limit": "0"}, []),
        ({"PatientWeight": "80"}, None),
        ({"Modality": "CT"}, None),
        ({"limit": "many"}, None),
    ],
)
def test_studies_are_matched(
    doctor: httpx.Client, query: dict[str, str], found: list[str] | None
) -> None:
    answer = doctor.get("/studies", params=query)

    if found is None:
        assert answer.status_code == 400
        assert answer.json()["type"] == "urn:countersign:problem:invalid-search"
    else:
        assert studies_of(answer) == found


@pytest.mark.parametrize(
    ("path", "query", "found"),
    [
        ("/series", {"PatientID": "Q1"}, [f"{FIRST}.1", f"{FIRST}.2"]),
        ("/series", {"Modality": "MR"}, None),
        (f"/studies/{FIRST}/series", {"SeriesNumber": "3"}, [f"{FIRST}.2"]),
        (f"/studies/{FIRST}/series", {"SeriesDescription": "lu*"}, [f"{FIRST}.1"]),
        (f"/studies/{FIRST}/series", {"limit": "1", "offset": "1"}, [f"{FIRST}.2"]),
        (f"/studies/{FIRST}/instances", {"InstanceNumber": "2"}, [f"{FIRST}.1"]),
        (f"/studies/{FIRST}/instances", {"SOPInstanceUID": f"{FIRST}.2.1"}, [f"{FIRST}.2"]),
        (f"/studies/{FIRST}/series/{FIRST}.1/instances", {}, [f"{FIRST}.1"] * 2),
        ("/instances", {"SOPInstanceUID": f"{FIRST}.2.1"}, [f"{FIRST}.2"]),
        ("/instances", {"StudyDate": "20260704", "ModalitiesInStudy": "MR"}, []),
        (f"/studies/{FIRST}/series", {"ModalitiesInStudy": "CT"}, [f"{FIRST}.1", f"{FIRST}.2"]),
    ],
)
def test_series_and_instances_are_matched(
    doctor: httpx.Client, path: str, query: dict[str, str], found: list[str] | None
) -> None:
    answer = doctor.get(path, params=query)

    items = answer.json() if answer.status_code == 200 else []
    series = [item["0020000E"]["Value"][0] for item in items]
    if found is None:
        assert {item["00080060"]["Value"][0] for item in items} == {"MR"}
    else:
        assert series == found
    # Study attributes come where the path names no study.
    assert all(("00100020" in item) != path.startswith("/studies/") for item in items)


def test_a_nul_is_in_nothing_that_is_kept(doctor: httpx.Client) -> None:
    found = [
        doctor.get(path).status_code
        for path in (
            "/studies?PatientID=Q1%00",
            "/studies?StudyInstanceUID=%00",
            f"/studies/{FIRST}%00/series",
            f"/studies/{FIRST}/series/%00/instances",
            f"/studies/{FIRST}%00/metadata",
            f"/studies/{FIRST}/series/%00/thumbnail",
        )
    ]

    assert found == [400, 400, 204, 204, 404, 404]


def test_an_answer_that_is_not_all_says_so(doctor: httpx.Client) -> None:
    answer = doctor.get("/studies", params={"limit": "1", "fuzzymatching": "true"})

    assert "fuzzymatching parameter is not supported" in answer.headers["Warning"]
    assert "additional results that can be requested" in answer.headers["Warning"]
    assert "Warning" not in doctor.get("/studies").headers


def test_urls_are_those_that_the_proxy_was_asked_for(doctor: httpx.Client) -> None:
    behind = {"Host": "viewer.example.org", "X-Forwarded-Proto": "https"}

    [series, _] = doctor.get(f"/studies/{FIRST}/series", headers=behind).json()

    url = f"https://viewer.example.org/dicom-web/studies/{FIRST}/series/{FIRST}.1"
    assert series["00081190"]["Value"] == [url]
