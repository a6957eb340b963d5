"""The header of a Part 10 file (PS3.10 §7.1): what is in it, and where its data set begins."""

from io import BytesIO
from typing import BinaryIO

from pydicom.filereader import read_dataset

from dicom_sender.presentation import Stored
from service_runtime.errors import PermanentError

_PREAMBLE = 128
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_LONGEST = 1 << 20


class UnreadableHeader(PermanentError):
    """The file is not what the instance store writes."""


def read_header(file: BinaryIO, key: str) -> Stored:
    """Return what the File Meta Information says of a file of the instance store.

    Raises
    ------
    UnreadableHeader
        It is no Part 10 file, or says too little.
    """
    begin = file.read(_PREAMBLE + 16)
    if begin[_PREAMBLE : _PREAMBLE + 12] != b"DICM" + _GROUP_LENGTH:
        raise UnreadableHeader(f"no File Meta Information in {key}")
    length = int.from_bytes(begin[_PREAMBLE + 12 :], "little")
    if length > _LONGEST:
        raise UnreadableHeader(f"File Meta Information of {length} bytes in {key}")
    meta = read_dataset(BytesIO(file.read(length)), is_implicit_VR=False, is_little_endian=True)
    try:
        return Stored(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            key=key,
            data_set_offset=_PREAMBLE + 16 + length,
        )
    except AttributeError:
        raise UnreadableHeader(f"the File Meta Information in {key} is incomplete") from None
