"""pynetdicom's own C-STORE holds an instance in memory: ours relies on private names of it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE


@pytest.mark.parametrize("name", ["_reactor_checkpoint", "_is_paused"])
def test_an_association_has_what_is_relied_on(name: str) -> None:
    assert hasattr(Association(AE("US"), "requestor"), name)


def test_the_provider_s_queue_tells_how_far_it_is_behind() -> None:
    assert Association(AE("US"), "requestor").dul.to_provider_queue.qsize() == 0


def test_a_file_is_read_from_its_offset_as_it_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "instance"
    file.write_bytes(b"header" + b"data set " * 5)
    in_memory, from_file = C_STORE(), C_STORE()
    for request in (in_memory, from_file):
        request.MessageID = 1
        request.Priority = 0
        request.AffectedSOPClassUID = "1.2.3"
        request.AffectedSOPInstanceUID = "1.2.3.4"
    in_memory.DataSet = BytesIO(b"data set " * 5)
    from_file._dataset_path = (file, len(b"header"))

    assert fragments(from_file) == fragments(in_memory)


def fragments(request: C_STORE) -> list[bytes]:
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    message.context_id = 1
    return [
        bytes(value)
        for each in message.encode_msg(1, 64)
        for _, value in each.presentation_data_value_list
    ]
