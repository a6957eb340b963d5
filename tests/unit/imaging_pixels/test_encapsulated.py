from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended

from imaging_pixels import encapsulated
from imaging_pixels.encapsulated import CodedFrames, coded_frame
from imaging_pixels.image_pixel import UndecodablePixels

FRAMES = [b"\xff\xd8" + bytes([number]) * (6 + 2 * number) for number in range(5)]


def fragments(frame: bytes, size: int) -> list[bytes]:
    return [frame[at : at + size] for at in range(0, len(frame), size)]


def item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


@given(size=st.integers(1, 7).map(lambda half: 2 * half), has_table=st.booleans())
def test_a_frame_is_found_however_it_is_cut(size: int, has_table: bool) -> None:
    offsets, at, body = [], 0, b""
    for frame in FRAMES:
        offsets.append(at)
        written = b"".join(item(part) for part in fragments(frame, size))
        body, at = body + written, at + len(written)
    table = struct.pack("<5I", *offsets) if has_table else b""

    value = item(table) + body

    assert [coded_frame(value, frame, 5) for frame in range(5)] == FRAMES
    view = memoryview(value + b"\xfe\xff\xdd\xe0\0\0\0\0" + bytes(9))
    assert [coded_frame(view, frame, 5) for frame in range(5)] == FRAMES


def test_a_frame_is_found_by_the_extended_offset_table() -> None:
    value, offsets, lengths = encapsulate_extended(FRAMES)

    found = [coded_frame(value, frame, 5, (offsets, lengths)) for frame in range(5)]

    assert found == FRAMES


@pytest.mark.parametrize(
    "tables", [(b"\1\0\0\0\0\0\0\0" * 5, b"\xff" * 40), (b"", b""), (b"\0" * 8, b"\1" * 40)]
)
def test_an_extended_offset_table_that_leads_nowhere_is_passed_over(tables: Any) -> None:
    value = encapsulate(FRAMES, has_bot=False)

    assert coded_frame(value, 3, 5, tables) == FRAMES[3]


@pytest.mark.parametrize("offsets", [[0, 0, 0, 0, 0], [9, 9, 9, 9, 9], [0, 2**32 - 1, 1, 2, 3]])
def test_a_basic_offset_table_that_leads_nowhere_is_passed_over(offsets: list[int]) -> None:
    value = item(struct.pack("<5I", *offsets)) + b"".join(item(frame) for frame in FRAMES)

    assert [coded_frame(value, frame, 5) for frame in range(5)] == FRAMES


def test_a_single_frame_is_all_of_its_fragments() -> None:
    value = encapsulate([FRAMES[4]], fragments_per_frame=3, has_bot=False)

    assert coded_frame(value, 0, 1) == FRAMES[4]


def test_fewer_frames_than_promised_are_counted() -> None:
    value = encapsulate(FRAMES, has_bot=False)

    with pytest.raises(UndecodablePixels, match="5 of 2147483647 compressed frames"):
        coded_frame(value, 0, 2**31 - 1)


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_fragment_that_is_cut_off_is_refused(cut: int) -> None:
    value = encapsulate([FRAMES[0], FRAMES[4]], has_bot=False)[:-8]

    with pytest.raises(UndecodablePixels, match=r"truncated|incomplete|empty|between|item"):
        coded_frame(value[:-cut], 1, 2)


@given(st.binary(max_size=80), st.integers(1, 4))
def test_noise_is_refused(noise: bytes, frames: int) -> None:
    try:
        found = coded_frame(item(b"") + noise, 0, frames)
    except UndecodablePixels:
        return
    assert len(found) <= len(noise)


def test_one_frame_of_a_thousand_takes_the_memory_of_one() -> None:
    frame = b"\xff\xd8" + bytes(49_998)
    value = encapsulate([frame] * 1000, has_bot=False)

    tracemalloc.start()
    coded_frame(value, 999, 1000)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 8 * len(frame)


@pytest.mark.parametrize("fragments_per_frame", [1, 2])
def test_the_fragments_of_a_thousand_frames_are_gone_through_once(
    fragments_per_frame: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [b"\xff\xd8" + struct.pack("<LL", number, 0) for number in range(1000)]
    value = encapsulate(frames, fragments_per_frame=fragments_per_frame, has_bot=False)
    looked_at = []
    look = encapsulated._fragment
    monkeypatch.setattr(
        encapsulated, "_fragment", lambda value, at: looked_at.append(at) or look(value, at)
    )

    coded = CodedFrames(value, 1000)
    found = [coded.frame(number) for number in range(1000)]

    assert found == frames
    assert len(looked_at) == 1000 * fragments_per_frame
