"""WADO-RS on both databases, asked by dicomweb-client and as viewers ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

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
)

from imaging_pixels.render import render
from tests.integration.dicom_listener.dicomweb_process import DicomWebProcess, parts_of, post
from tests.integration.dicom_listener.dicomweb_studies import (
    FIRST,
    OHIF,
    PIXELS,
    SECOND,
    file_of,
    slices,
    studies_of,
)
from tests.integration.dicom_listener.listener import a_slice, sendable_file

OHIF_FRAMES = {"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}
EXPLICIT = {"Accept": 'multipart/related; type="application/dicom"'}


@pytest.fixture
def peer(dicomweb: DicomWebProcess) -> DICOMwebClient:
    """Return dicomweb-client, logged in."""
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {dicomweb.token('doctor')}"
    return DICOMwebClient(dicomweb.url, session=session)


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
