"""Which studies a Key Object Selection rejects instances of (PS3.3 §A.35.4, IHE IOCM). Pure."""

from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from dicom_listener.instance_header import inflated
from dicom_listener.sop_classes import BIG_ENDIAN, DEFLATED, IMPLICIT_VR
from message_contracts.identifiers import is_uid

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"

_REJECTIONS = frozenset(
    {
        "113001",  # Rejected for Quality Reasons
        "113037",  # Rejected for Patient Safety Reasons
        "113038",  # Incorrect Modality Worklist Entry
        "113039",  # Data Retention Policy Expired
    }
)
_WANTED: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (
        "StudyInstanceUID",
        "ConceptNameCodeSequence",
        "CurrentRequestedProcedureEvidenceSequence",
    )
]


def rejected_studies(file: BinaryIO, transfer_syntax_uid: str) -> tuple[str, ...]:
    """Return the Study Instance UIDs of what the document at the position of ``file`` rejects.

    None where its title (PS3.16 CID 7011) is another. One that rejects and does not say what is
    taken to be about its own study.
    """
    if transfer_syntax_uid in DEFLATED:
        file = inflated(file)
    try:
        ds = read_dataset(
            file,
            transfer_syntax_uid in IMPLICIT_VR,
            transfer_syntax_uid not in BIG_ENDIAN,
            specific_tags=_WANTED,
        )
        if not _is_rejection(ds):
            return ()
        evidence = _items(ds, "CurrentRequestedProcedureEvidenceSequence") or [ds]
        studies = [str(item.get("StudyInstanceUID") or "").strip(" \0") for item in evidence]
    except Exception:  # noqa: BLE001 - whatever a malformed document does to the parser
        return ()
    return tuple(dict.fromkeys(uid for uid in studies if is_uid(uid)))


def _is_rejection(ds: Dataset) -> bool:
    return any(
        item.get("CodeValue") in _REJECTIONS
        and item.get("CodingSchemeDesignator") in {"DCM", "", None}
        for item in _items(ds, "ConceptNameCodeSequence")
    )


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    value = ds.get(keyword)
    return list(value) if isinstance(value, Sequence) else []
