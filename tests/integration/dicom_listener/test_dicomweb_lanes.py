"""What takes long keeps nobody else waiting: work on pixels has a lane of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicom_listener.dicomweb import pixels, rendering, retrieval
from dicom_listener.dicomweb.pixel_work import PIXEL_WORK
from imaging_pixels.transcode import transcode
from tests.integration.dicom_listener.dicomweb_room import app_before
from tests.integration.dicom_listener.listener import Sendable, a_slice
from tests.integration.dicom_listener.reading_room import ReadingRoom
from tests.peers.processes import wait_until
from tests.synthetic_images import part10

LONG_S = 60
MORE_THAN_THREADS = 60
THREADS = 40


def a_compressed_slice() -> tuple[Sendable, str]:
    """Draw one, and return the path of its resource too."""
    ds = a_slice()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    sent = Sendable(
        transcode(part10(ds), RLELossless), RLELossless, ds.SOPClassUID, ds.SOPInstanceUID
    )
    series = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
    return sent, f"{series}/instances/{ds.SOPInstanceUID}"


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
