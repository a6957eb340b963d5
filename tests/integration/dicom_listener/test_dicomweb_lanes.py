"""What takes long, or much memory, keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import threading
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from dicom_listener.dicomweb import bulk_data, frames, pixels, rendering, retrieval
from dicom_listener.dicomweb.memory import Memory
from dicom_listener.dicomweb.pixel_work import PIXEL_WORK
from imaging_pixels.transcode import transcode
from tests.integration.dicom_listener.dicomweb_room import app_before
from tests.integration.dicom_listener.listener import Sendable, a_slice, sendable
from tests.integration.dicom_listener.reading_room import ReadingRoom
from tests.peers.processes import wait_until
from tests.synthetic_images import part10

LONG_S = 60
MORE_THAN_THREADS = 60
THREADS = 40


def a_compressed_slice() -> tuple[Sendable, str]:
    """Draw one, and return the path of its resource too."""
    ds = as_file(a_slice())
    sent = Sendable(
        transcode(part10(ds), RLELossless), RLELossless, ds.SOPClassUID, ds.SOPInstanceUID
    )
    return sent, path_of(ds)


def a_deflated_slice() -> tuple[Sendable, str]:
    """Draw one, and return the path of its resource too."""
    ds = as_file(a_slice())
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = deflater.compress(sendable(ds).data) + deflater.flush()
    syntax = DeflatedExplicitVRLittleEndian
    return Sendable(data, syntax, ds.SOPClassUID, ds.SOPInstanceUID), path_of(ds)


def as_file(ds: Dataset) -> Dataset:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def path_of(ds: Dataset) -> str:
    series = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
    return f"{series}/instances/{ds.SOPInstanceUID}"


@pytest.mark.parametrize(
    "asked",
    [
        ("/rendered", "image/png", rendering, "render", np.zeros((8, 8), "u1")),
        ("/frames/1/rendered", "image/png", rendering, "render", np.zeros((8, 8), "u1")),
        ("/thumbnail", "image/png", rendering, "render", np.zeros((8, 8), "u1")),
        ("/frames/1", "application/octet-stream", pixels, "decode", np.zeros((8, 8), "u2")),
        ("", "application/dicom", retrieval, "transcode", b"\0"),
    ],
)
def test_searches_are_answered_while_work_on_pixels_waits(
    room_in_sqlite: ReadingRoom,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[str, str, Any, str, Any],
) -> None:
    path, accept, module, work, made = asked
    sent, url = a_compressed_slice()
    room_in_sqlite.arrive(sent)
    under_way: list[int] = []
    may_end = threading.Event()

    def slowly(*_: object) -> Any:
        under_way.append(1)
        may_end.wait(LONG_S)
        return made

    monkeypatch.setattr(module, work, slowly)

    async def ask() -> tuple[httpx.Response, list[httpx.Response]]:
        transport = httpx.ASGITransport(app_before(room_in_sqlite))
        async with httpx.AsyncClient(transport=transport, base_url="http://dicomweb") as client:
            waiting = [
                asyncio.create_task(client.get(f"{url}{path}", headers={"Accept": accept}))
                for _ in range(MORE_THAN_THREADS)
            ]
            try:
                await asyncio.to_thread(
                    wait_until,
                    lambda: len(under_way) + PIXEL_WORK.statistics().tasks_waiting >= THREADS,
                    timeout_s=LONG_S,
                    what="as many at work or waiting as there are threads",
                )
                found = await asyncio.wait_for(client.get("/dicom-web/studies"), LONG_S / 2)
            finally:
                may_end.set()
            return found, await asyncio.gather(*waiting)

    found, answers = asyncio.run(ask())

    assert found.status_code == 200
    assert {answer.status_code for answer in answers} == {200}
    assert len(under_way) == MORE_THAN_THREADS


def answers_to(room: ReadingRoom, *asked: tuple[str, str]) -> list[httpx.Response]:
    """Ask for one after the other, each with what is accepted."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app_before(room))
        async with httpx.AsyncClient(transport=transport, base_url="http://dicomweb") as client:
            return [await client.get(path, headers={"Accept": kind}) for path, kind in asked]

    return asyncio.run(ask())


def test_what_is_deflated_waits_for_memory_where_it_stays_in_it(
    room_in_sqlite: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, url = a_deflated_slice()
    room_in_sqlite.arrive(sent)
    octets = "application/octet-stream"
    asked = [
        (f"{url}/frames/1", octets),
        (f"{url}/bulkdata/7FE00010", octets),
        (f"{url}/rendered", "image/png"),
        (f"{url}/metadata", "application/dicom+json"),
        (url, "application/dicom"),
    ]

    before = answers_to(room_in_sqlite, *asked)
    monkeypatch.setattr(frames, "INFLATED", Memory(10))
    without_memory = answers_to(room_in_sqlite, *asked)
    monkeypatch.setattr(bulk_data, "MOST_INFLATED_BYTES", 10)
    monkeypatch.setattr(retrieval, "MOST_INFLATED_BYTES", 10)
    too_long = answers_to(room_in_sqlite, *asked)
    [as_stored] = answers_to(room_in_sqlite, (url, "application/dicom; transfer-syntax=*"))

    assert [answer.status_code for answer in before] == [200] * 5
    assert before[0].content == before[1].content == bytes(128)
    assert [answer.status_code for answer in without_memory] == [503, 503, 200, 200, 200]
    assert int(without_memory[0].headers["Retry-After"]) > 0
    assert [answer.status_code for answer in too_long] == [406, 406, 406, 200, 406]
    assert "inflates to more than" in too_long[0].json()["detail"]
    assert as_stored.content.endswith(sent.data)
