"""Which abstract and transfer syntaxes the listener accepts, and which objects no model reads."""

from pydicom._uid_dict import UID_dictionary

VERIFICATION = "1.2.840.10008.1.1"

IMPLICIT_VR = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.20"})
BIG_ENDIAN = frozenset({"1.2.840.10008.1.2.2"})
DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)

_NOT_FOR_DATA_SETS = {"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2"}  # MIME, XML
TRANSFER_SYNTAXES = frozenset(
    uid
    for uid, (_name, kind, *_rest) in UID_dictionary.items()
    if kind == "Transfer Syntax" and uid not in _NOT_FOR_DATA_SETS
)
"""Every transfer syntax that PS3.6 Annex A defines for data sets, retired ones too."""

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_NOT_COMPOSITE_STORAGE = frozenset(
    {
        "1.2.840.10008.1.3.10",  # Media Storage Directory
        "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
        "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model
        # Non-Patient Object Storage (PS3.4 Annex GG) and the Inventory
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
        "1.2.840.10008.5.1.4.39.1",  # Color Palette
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group
        "1.2.840.10008.5.1.4.1.1.200.1",  # CT Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.200.3",  # Protocol Approval
        "1.2.840.10008.5.1.4.1.1.200.7",  # XA Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory
    }
)

_NO_MODEL_READS = tuple(
    _STORAGE_ROOT + suffix
    for suffix in (
        "4.2.",  # MR Spectroscopy
        "8.",  # Standalone Overlay
        "9.",  # Curves and waveforms
        "10.",  # Standalone Modality LUT
        "11.",  # Presentation states
        "30.",  # Parametric Map: a result
        "66.",  # Raw data, registration, fiducials, segmentation, tractography
        "67.",  # Real World Value Mapping
        "68.",  # Surface scans
        "77.1.5.3.",  # Stereometric Relationship
        "78.",  # Ophthalmic measurements
        "79.",
        "80.",
        "88.",  # Structured reports and key objects
        "90.",  # Content Assessment Results
        "91.",  # Annotations
        "104.",  # Encapsulated documents
        "129.",  # Standalone PET Curve
        "131.",  # Basic Structured Display
        "200.",  # Performed Procedure Protocol
        "501.3.",  # Threat Detection Report
    )
)
_RT_ROOT = _STORAGE_ROOT + "481."
_RT_IMAGES = {_RT_ROOT + "1", _RT_ROOT + "23", _RT_ROOT + "24"}
_MODALITIES_WITHOUT_IMAGES = frozenset(
    {"ANN", "ASMT", "AU", "DOC", "ECG", "FID", "HC", "HD", "KO", "PLAN", "PR", "REG"}
    | {
        "RESP",
        "RTDOSE",
        "RTPLAN",
        "RTRECORD",
        "RTSTRUCT",
        "RWV",
        "SEG",
        "SR",
        "STAIN",
        "TEXTUREMAP",
    }
)


def is_storage(abstract_syntax: str) -> bool:
    """Whether a presentation context for this abstract syntax is accepted for C-STORE.

    That is every composite SOP class about a patient, known or private. A UID under the Standard's
    storage root that is newer than our dictionary is taken for a storage class; any other UID of
    the Standard's that we do not know is not.
    """
    if abstract_syntax in _NOT_COMPOSITE_STORAGE:
        return False
    known = UID_dictionary.get(abstract_syntax)
    if known is not None:
        name, kind = known[0], known[1]
        return kind == "SOP Class" and ("Storage" in name or not name)
    return not abstract_syntax.startswith(_DICOM_ROOT) or abstract_syntax.startswith(_STORAGE_ROOT)


def is_read_by_no_model(sop_class_uid: str, modality: str) -> bool:
    """Whether this accompanies images, or is what others made of them, and is no image itself."""
    if sop_class_uid.startswith(_RT_ROOT):
        return sop_class_uid not in _RT_IMAGES
    return f"{sop_class_uid}.".startswith(_NO_MODEL_READS) or modality in _MODALITIES_WITHOUT_IMAGES
