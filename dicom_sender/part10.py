"""What a file of the instance store says of itself (PS3.10 §7.1)."""

from typing import BinaryIO

from dicom_sender.presentation import Stored
from imaging_pixels.file_meta import NotPart10, read_file_meta
from service_runtime.errors import PermanentError


class UnreadableHeader(PermanentError):
    """The file is not what the instance store writes."""


def read_header(file: BinaryIO, key: str) -> Stored:
    """Return what the File Meta Information says of a file of the instance store.

    Raises
    ------
    UnreadableHeader
        It is no Part 10 file, or says too little.
    """
    try:
        meta = read_file_meta(file)
    except NotPart10 as error:
        raise UnreadableHeader(f"{key}: {error}") from None
    if not (meta.sop_class_uid and meta.sop_instance_uid and meta.transfer_syntax_uid):
        raise UnreadableHeader(f"the File Meta Information in {key} is incomplete")
    return Stored(
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        key=key,
        data_set_offset=meta.size_bytes,
    )
