"""QIDO-RS and WADO-RS on both databases, asked by dicomweb-client and as viewers ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import cv2
import httpx
import numpy as np
import pytest
import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from sqlalchemy import insert

from imaging_pixels.render import render
from imaging_store.schema.ingest import instance
from imaging_store.schema.results import result_object
from imaging_store.schema.workflow import cases, signature
from message_contracts.identifiers import case_id_of
from tests.integration.dicom_listener.dicomweb_process import DicomWebProcess, parts_of, post
from tests.integration.dicom_listener.listener import a_slice, sendable_file
from tests.integration.dicom_listener.test_dicomweb_storing import file_of

FIRST = "2.25.4101"
SECOND = "2.25.4102"
THIRD = "2.25.4103"
PIXELS = bytes(range(128))
OHIF = {"limit": "101", "offset": "0", "fuzzymatching": "false"}
OHIF_FRAMES = {"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}
EXPLICIT = {"Accept": 'multipart/related; type="application/dicom"'}


def slices() -> list[Dataset]:
    """Draw three studies: of one series of two and another of one; of one MR; of one CT."""
    about = {"StudyInstanceUID": FIRST, "PatientName": "Quill^Ada=鵞筆^阿陀", "PatientID": "Q1"}
    about |= {"AccessionNumber": "A_1", "StudyDescription": "Thorax", "StudyID": "S1"}
    about |= {"ReferringPhysicianName": "Rei^Erin", "TimezoneOffsetFromUTC": "+0200"}
    lung = {"SeriesInstanceUID": f"{FIRST}.1", "SeriesNumber": 2, "SeriesDescription": "Lung"}
    bone = {"SeriesInstanceUID": f"{FIRST}.2", "SeriesNumber": 3, "SeriesDescription": "Bone"}
    window = {"WindowCenter": "100", "WindowWidth": "50"}
    return [
        a_slice(**about, **lung, **window, InstanceNumber=1, SOPInstanceUID=f"{FIRST}.1.1"),
        a_slice(**about, **lung, InstanceNumber=2, SOPInstanceUID=f"{FIRST}.1.2"),
        a_slice(**about, **bone, InstanceNumber=1, SOPInstanceUID=f"{FIRST}.2.1"),
        a_slice(
            StudyInstanceUID=SECOND,
            SOPInstanceUID=f"{SECOND}.1",
            StudyDate="20260705",
            StudyTime="",
            Modality="MR",
            PatientID="Q%2",
            PatientName="Quilt^Bea",
        ),
        a_slice(
            StudyInstanceUID=THIRD,
            SOPInstanceUID=f"{THIRD}.1",
            StudyDate="20260801",
            StudyTime="081500",
            PatientID="Z9",
            PatientName="Zorn",
            SpecificCharacterSet="ISO_IR 144",
            StudyDescription="Грудь",
        ),
    ]


@pytest.fixture(scope="module")
def dicomweb(shared_dicomweb: DicomWebProcess) -> DicomWebProcess:
    with shared_dicomweb.client() as admin:
        files = []
        for ds in slices():
            ds.PixelData = PIXELS
            files.append(file_of(ds))
        assert post(admin, *files).status_code == 200
    return shared_dicomweb


@pytest.fixture(scope="module")
def doctor(dicomweb: DicomWebProcess) -> httpx.Client:
    return dicomweb.client("doctor")


@pytest.fixture
def peer(dicomweb: DicomWebProcess) -> DICOMwebClient:
    """Return dicomweb-client, logged in."""
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {dicomweb.token('doctor')}"
    return DICOMwebClient(dicomweb.url, session=session)


def studies_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code in {200, 204}, answer.text
    found = answer.json() if answer.status_code == 200 else []
    return [item["0020000D"]["Value"][0] for item in found]


def test_dicomweb_client_finds_and_retrieves(peer: DICOMwebClient) -> None:
    studies = peer.search_for_studies(search_filters={"PatientID": "Q1"})
    series = peer.search_for_series(FIRST)
    instances = peer.search_for_instances(FIRST, f"{FIRST}.1")
    metadata = peer.retrieve_study_metadata(FIRST)
    retrieved = peer.retrieve_study(FIRST)
    one = peer.retrieve_instance(FIRST, f"{FIRST}.1", f"{FIRST}.1.2")
    frames = peer.retrieve_instance_frames(FIRST, f"{FIRST}.1", f"{FIRST}.1.1", [1])
    picture = peer.retrieve_instance_rendered(
        FIRST, f"{FIRST}.1", f"{FIRST}.1.1", media_types=("image/png",)
    )

    [study] = [Dataset.from_json(each) for each in studies]
    assert study.PatientName == "Quill^Ada=鵞筆^阿陀"
    assert (study.StudyDate, study.StudyTime) == ("20260704", "120000")
    assert study.TimezoneOffsetFromUTC == "+0200"
    assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (2, 3)
    assert study.ModalitiesInStudy == "CT"
    assert [Dataset.from_json(each).SeriesNumber for each in series] == [2, 3]
    assert [Dataset.from_json(each).SeriesDescription for each in series] == ["Lung", "Bone"]
    assert [Dataset.from_json(each).InstanceNumber for each in instances] == [1, 2]
    assert {Dataset.from_json(each).Rows for each in instances} == {8}
    assert len(metadata) == len(retrieved) == 3
    assert one.SOPInstanceUID == f"{FIRST}.1.2"
    assert one.PixelData == frames[0] == PIXELS
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE).shape == (8, 8)


def test_dicomweb_client_stores(dicomweb: DicomWebProcess) -> None:
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {dicomweb.token('admin')}"
    ds = dcmread(BytesIO(file_of(a_slice(StudyDate="19990101"))))

    answer = DICOMwebClient(dicomweb.url, session=session).store_instances([ds])

    [stored] = answer.ReferencedSOPSequence
    assert stored.ReferencedSOPInstanceUID == ds.SOPInstanceUID
    assert stored.RetrieveURL.endswith(f"/instances/{ds.SOPInstanceUID}")


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


def test_a_viewer_goes_from_its_list_to_the_pixels(doctor: httpx.Client) -> None:
    """As OHIF does: the study by its UID, its series, their metadata, and a frame of each."""
    json_wanted = {"Accept": "application/dicom+json"}
    listed = doctor.get(
        "/studies",
        params=OHIF | {"includefield": "00081030,00080060", "StudyInstanceUID": FIRST},
        headers=json_wanted,
    )
    series = doctor.get(
        f"/studies/{FIRST}/series",
        params={"includefield": "00080021,00080031,0008103E,00200011"},
        headers=json_wanted,
    )
    uids = [item["0020000E"]["Value"][0] for item in series.json()]
    metadata = [
        item
        for uid in uids
        for item in doctor.get(
            f"/studies/{FIRST}/series/{uid}/metadata", headers=json_wanted
        ).json()
    ]

    assert studies_of(listed) == [FIRST]
    assert [item["00200011"]["Value"] for item in series.json()] == [[2], [3]]
    assert len(metadata) == 3
    for item in metadata:
        ds = Dataset.from_json(item, bulk_data_uri_handler=lambda _uri: None)
        url = (
            f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
            f"/instances/{ds.SOPInstanceUID}"
        )
        [(head, frame)] = parts_of(doctor.get(f"{url}/frames/1", headers=OHIF_FRAMES))
        thumbnail = doctor.get(f"{url}/rendered", params={"accept": "image/jpeg"})
        assert f"transfer-syntax={item['00083002']['Value'][0]}" in head["content-type"]
        assert len(frame) == ds.Rows * ds.Columns * ds.BitsAllocated // 8
        assert frame == PIXELS
        assert thumbnail.headers["content-type"] == "image/jpeg"


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


def test_a_data_set_comes_as_it_was_sent(doctor: httpx.Client) -> None:
    url = f"/studies/{FIRST}/series/{FIRST}.1/instances/{FIRST}.1.1"
    sent = next(ds for ds in slices() if ds.SOPInstanceUID == f"{FIRST}.1.1")
    sent.PixelData = PIXELS

    [(head, part)] = parts_of(doctor.get(url, headers=EXPLICIT))
    whole = doctor.get(url, headers={"Accept": "application/dicom"})

    assert head["content-type"] == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    assert head["content-location"].endswith(url)
    assert whole.headers["content-type"].startswith("application/dicom")
    assert part == whole.content
    assert part.endswith(file_of(sent)[-len(PIXELS) - 200 :])


def test_metadata_have_all_but_bulk_data(doctor: httpx.Client) -> None:
    answer = doctor.get(f"/studies/{FIRST}/metadata")

    [first, _, _] = answer.json()
    assert answer.headers["content-type"] == "application/dicom+json"
    assert first["00281050"]["Value"] == [100.0]
    pixels = first["7FE00010"]["BulkDataURI"]
    assert parts_of(doctor.get(pixels))[0][1] == PIXELS


@pytest.fixture(scope="module")
def compressed(dicomweb: DicomWebProcess, test_data: Path) -> tuple[str, Path]:
    """Store a compressed image, and return its URL and file."""
    path = test_data / "dicom" / "ct_chest_jpeg_lossless_sv1.dcm"
    with dicomweb.client() as admin:
        [stored] = post(admin, path.read_bytes()).json()["00081199"]["Value"]
    url: str = stored["00081190"]["Value"][0]
    return url, path


def test_frames_come_as_stored_or_as_pixels(
    doctor: httpx.Client, compressed: tuple[str, Path]
) -> None:
    url, path = compressed
    ds = dcmread(path)

    [(head, stored)] = parts_of(doctor.get(f"{url}/frames/1", headers=OHIF_FRAMES))
    [(plain_head, plain)] = parts_of(
        doctor.get(
            f"{url}/frames/1",
            headers={"Accept": 'multipart/related; type="application/octet-stream"'},
        )
    )
    single = doctor.get(f"{url}/frames/1", headers={"Accept": "application/octet-stream"})
    jpeg = doctor.get(f"{url}/frames/1", headers={"Accept": "multipart/related; type=image/jpeg"})
    jls = doctor.get(f"{url}/frames/1", headers={"Accept": "multipart/related; type=image/jls"})
    absent = [doctor.get(f"{url}/frames/{number}").status_code for number in ("2", "0", "1,9")]

    assert head["content-type"] == f"image/jpeg; transfer-syntax={JPEGLosslessSV1}"
    assert stored in ds.PixelData
    assert parts_of(jpeg)[0][1] == stored
    assert plain_head["content-type"].startswith("application/octet-stream")
    assert plain == single.content == ds.pixel_array.tobytes()
    assert jls.status_code == 406
    assert absent == [404, 404, 404]
    assert doctor.get(f"{url}/frames/one").status_code == 400


def test_an_instance_is_transcoded_where_that_is_asked_for(
    doctor: httpx.Client, compressed: tuple[str, Path]
) -> None:
    url, path = compressed
    source = sendable_file(path)

    as_stored = doctor.get(url, headers={"Accept": f"{EXPLICIT['Accept']}; transfer-syntax=*"})
    anything = doctor.get(url)
    explicit = doctor.get(url, headers=EXPLICIT)
    other = {"Accept": f"{EXPLICIT['Accept']}; transfer-syntax=1.2.840.10008.1.2.4.50"}

    assert parts_of(as_stored)[0][1].endswith(source.data)
    assert parts_of(anything)[0][1].endswith(source.data)
    ds = dcmread(BytesIO(parts_of(explicit)[0][1]))
    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert np.array_equal(ds.pixel_array, dcmread(path).pixel_array)
    assert doctor.get(url, headers=other).status_code == 406


def test_pictures_are_rendered_as_asked(doctor: httpx.Client, compressed: tuple[str, Path]) -> None:
    url, path = compressed
    expected = render(dcmread(path))

    def picture(query: str = "", kind: str = "image/png") -> np.ndarray:
        answer = doctor.get(f"{url}/{query}", headers={"Accept": kind})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == kind
        return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_GRAYSCALE)

    wide = picture("rendered?window=0,100000,linear")
    small = picture("thumbnail", "image/jpeg")

    assert np.array_equal(picture("rendered"), expected)
    assert np.array_equal(picture("frames/1/rendered"), expected)
    assert abs(picture("rendered", "image/jpeg").astype(int) - expected).mean() < 4
    assert np.ptp(wide) < 20
    assert picture("rendered?viewport=100,50").shape == (50, 50)
    assert picture("rendered?viewport=64,64,0,0,64,64").shape == (64, 64)
    assert np.array_equal(picture("rendered?viewport=,,100,,20,"), expected[:, 100:120])
    assert np.array_equal(picture("rendered?viewport=,,,90,,-10"), expected[90:100][::-1])
    assert picture("rendered?viewport=128,").shape[1] == 128
    assert max(small.shape) == 200
    for outside in ("0,-3,64,2", "-3,0,2,64", "100000,0,64,64"):
        assert doctor.get(f"{url}/rendered?viewport=64,64,{outside}").status_code == 406
    assert doctor.get(f"{url}/rendered?annotation=patient").status_code == 400
    assert doctor.get(f"{url}/rendered", headers={"Accept": "video/mp4"}).status_code == 406


def test_one_frame_of_many_is_shown_as_it_is_meant(
    dicomweb: DicomWebProcess, doctor: httpx.Client
) -> None:
    windows = []
    for center in ("40", "80", "120"):
        voi, frame = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = center, "60"
        frame.FrameVOILUTSequence = [voi]
        windows.append(frame)
    ds = a_slice(NumberOfFrames=3, PerFrameFunctionalGroupsSequence=windows)
    # So long that it stays in the file until it is asked for.
    ds.Rows = ds.Columns = 256
    ds.PixelData = np.arange(3 * 256 * 256, dtype="<u2").tobytes()
    file = file_of(ds)
    with dicomweb.client() as admin:
        [stored] = post(admin, file).json()["00081199"]["Value"]
    url = stored["00081190"]["Value"][0]

    shown = [
        doctor.get(f"{url}/{which}", headers={"Accept": "image/png"}).content
        for which in ("frames/1/rendered", "frames/3/rendered", "rendered")
    ]

    for picture, frame_number in zip(shown, (0, 2, 1), strict=True):
        decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(decoded, render(dcmread(BytesIO(file)), frame_number))
    assert doctor.get(f"{url}/frames/4/rendered").status_code == 404
    [(_, second)] = parts_of(doctor.get(f"{url}/frames/2", headers=OHIF_FRAMES))
    assert second == ds.PixelData[131_072:262_144]


def test_studies_and_series_have_pictures(doctor: httpx.Client) -> None:
    thumbnails = [
        doctor.get(path) for path in (f"/studies/{FIRST}/thumbnail", f"/studies/{SECOND}/thumbnail")
    ]
    rendered = doctor.get(f"/studies/{FIRST}/series/{FIRST}.1/rendered")

    assert {answer.status_code for answer in thumbnails} == {200}
    assert [head["content-type"] for head, _ in parts_of(rendered)] == ["image/jpeg"] * 2


def test_what_cannot_be_shown_is_told_so(
    dicomweb: DicomWebProcess, doctor: httpx.Client, test_data: Path
) -> None:
    with dicomweb.client() as admin:
        urls = [
            post(admin, (test_data / "dicom" / name).read_bytes()).json()["00081199"]["Value"][0][
                "00081190"
            ]["Value"][0]
            for name in ("sr_basic_text.dcm", "bad_mr_truncated.dcm")
        ]

    answers = [
        doctor.get(f"{url}/{what}")
        for url in urls
        for what in ("rendered", "thumbnail", "metadata")
    ]

    assert [answer.status_code for answer in answers] == [406, 406, 200] * 2
    assert answers[0].headers["content-type"] == "application/problem+json"


def test_what_is_excluded_or_purged_is_not_offered(
    dicomweb: DicomWebProcess, doctor: httpx.Client
) -> None:
    study, kept, excluded, purged, both = (generate_uid() for _ in range(5))
    with dicomweb.client() as admin:
        files = [
            file_of(a_slice(StudyInstanceUID=study, SeriesInstanceUID="2.25.9", SOPInstanceUID=uid))
            for uid in (kept, excluded, purged, both)
        ]
        assert post(admin, *files).status_code == 200
    for uid, column in (
        (excluded, "excluded_at"),
        (purged, "purged_at"),
        (both, "excluded_at"),
        (both, "purged_at"),
    ):
        change = instance.update().where(instance.c.sop_instance_uid == uid)
        dicomweb.execute(change.values({column: datetime.now(UTC)}))

    found = doctor.get(f"/studies/{study}/instances").json()
    [counted] = doctor.get("/studies", params={"StudyInstanceUID": study}).json()
    url = f"/studies/{study}/series/2.25.9/instances"

    assert [item["00080018"]["Value"][0] for item in found] == [kept]
    assert counted["00201208"]["Value"] == [1]
    assert doctor.get(f"{url}/{excluded}").status_code == 404
    assert doctor.get(f"{url}/{both}").status_code == 404
    assert doctor.get(f"{url}/{purged}").status_code == 410
    assert doctor.get(f"{url}/{purged}/metadata").status_code == 410
    assert doctor.get("/studies/1.2.3.4/metadata").status_code == 404


@pytest.fixture
def with_result(dicomweb: DicomWebProcess) -> Callable[..., tuple[str, str]]:
    """Store a study, and a Secondary Capture that was made of it."""

    def make(*, sent_back: bool = False, decision: str = "", **case: object) -> tuple[str, str]:
        study = generate_uid()
        capture = a_slice(
            StudyInstanceUID=study,
            SOPClassUID=SecondaryCaptureImageStorage,
            Modality="OT",
            SeriesNumber=9001,
            SeriesDescription="AI - not for primary diagnosis: chest",
        )
        with dicomweb.client() as admin:
            source = file_of(a_slice(StudyInstanceUID=study))
            files = [source, file_of(capture)] if sent_back else [source]
            assert post(admin, *files).status_code == 200
        key = f"results/{capture.SOPInstanceUID}/SC.dcm"
        dicomweb.store.put_artifact(key, file_of(capture))
        case_id, now = case_id_of(study), datetime.now(UTC)
        dicomweb.execute(
            insert(cases),
            {
                "id": case_id,
                "study_instance_uid": study,
                "status": "AI_ANALYZED",
                "version": 1,
                "revision": 1,
                "on_hold": False,
                "opened_at": now,
                "changed_at": now,
                **case,
            },
        )
        dicomweb.execute(
            insert(result_object),
            {
                "sop_instance_uid": capture.SOPInstanceUID,
                "sop_class_uid": capture.SOPClassUID,
                "study_instance_uid": study,
                "series_instance_uid": capture.SeriesInstanceUID,
                "case_id": case_id,
                "case_version": 1,
                "model_name": "chest",
                "model_version": "1",
                "key": key,
                "sha256": "",
                "made_at": now,
            },
        )
        if decision:
            signed = {"id": uuid4(), "case_id": case_id, "case_version": 1, "stage": "doctor"}
            signed |= {"user_id": uuid4(), "printed_name": "D", "role": "doctor", "meaning": "m"}
            signed |= {"decision": decision, "notes": "", "signed_at": now}
            signed |= {"authentication": "password", "content_sha256": ""}
            dicomweb.execute(insert(signature), signed)
        return study, str(capture.SOPInstanceUID)

    return make


@pytest.mark.parametrize(
    ("case", "is_offered"),
    [
        ({}, True),
        ({"sent_back": True}, True),
        ({"decision": "agree", "status": "DOCTOR_VERIFIED"}, True),
        ({"decision": "agree", "status": "REPORT_READY", "report_version": 1}, True),
        ({"decision": "override", "status": "DOCTOR_VERIFIED"}, False),
        ({"decision": "override", "status": "DOCTOR_VERIFIED", "sent_back": True}, False),
        ({"status": "REJECTED"}, False),
        ({"status": "AI_ANALYZED", "version": 2}, False),
        ({"status": "AMENDING", "version": 2, "report_version": 1}, True),
        ({"status": "REPORT_READY", "version": 2, "report_version": 2}, False),
    ],
)
def test_results_are_offered_as_far_as_they_hold(
    doctor: httpx.Client,
    with_result: Callable[..., tuple[str, str]],
    case: dict[str, object],
    is_offered: bool,
) -> None:
    study, capture = with_result(**case)

    instances = doctor.get(f"/studies/{study}/instances").json()
    series = doctor.get(f"/studies/{study}/series").json()
    metadata = doctor.get(f"/studies/{study}/metadata").json()
    [counted] = doctor.get("/studies", params={"StudyInstanceUID": study}).json()

    uids = [item["00080018"]["Value"][0] for item in instances]
    assert (capture in uids) is is_offered
    assert len(uids) == len(set(uids)) == len(series) == len(metadata) == 1 + is_offered
    assert counted["00080061"]["Value"] == (["CT", "OT"] if is_offered else ["CT"])
    if is_offered:
        [made] = [item for item in series if item["00080060"]["Value"] == ["OT"]]
        [item] = [item for item in instances if item["00080018"]["Value"] == [capture]]
        assert made["00200011"]["Value"] == [9001]
        assert made["0008103E"]["Value"][0].startswith("AI - not for primary diagnosis")
        assert item["00280010"]["Value"] == [8]
        assert doctor.get(f"{item['00081190']['Value'][0]}/thumbnail").status_code == 200


def test_pages_of_other_origins_may_ask_where_they_are_listed(
    start_dicomweb: Callable[..., DicomWebProcess], doctor: httpx.Client
) -> None:
    viewer = "https://viewer.example.org"
    asked = {"Origin": viewer, "Access-Control-Request-Method": "GET"}
    asked |= {"Access-Control-Request-Headers": "authorization"}
    listed = start_dicomweb(dicomweb_origins=json.dumps([viewer])).client()

    preflight = listed.options("/studies", headers=asked)
    other = listed.get("/studies", headers={"Origin": "https://elsewhere.example.org"})
    nowhere = doctor.options("/studies", headers=asked)

    assert preflight.headers["Access-Control-Allow-Origin"] == viewer
    assert "Access-Control-Allow-Origin" not in other.headers
    assert nowhere.status_code == 405
    assert "Access-Control-Allow-Origin" not in nowhere.headers
