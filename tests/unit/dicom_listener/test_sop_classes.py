import pytest

from dicom_listener.sop_classes import TRANSFER_SYNTAXES, is_read_by_no_model, is_storage

ROOT = "1.2.840.10008.5.1.4.1.1."


@pytest.mark.parametrize(
    "uid",
    [
        ROOT + "2",  # CT
        ROOT + "88.67",  # dose SR
        ROOT + "104.1",  # PDF
        ROOT + "200.2",  # CT Performed Procedure Protocol: of a patient
        ROOT + "9999.1",  # newer than our dictionary
        ROOT + "12.77",  # retired, without a name
        "1.2.840.10008.5.1.4.34.7",  # RT Beams Delivery Instruction
        "1.3.12.2.1107.5.9.1",  # private
    ],
)
def test_composite_storage_is_accepted(uid: str) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.1.1",  # Verification has its own rule
        "1.2.840.10008.1.20.1",  # Storage Commitment
        "1.2.840.10008.1.3.10",  # DICOMDIR
        "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root FIND
        "1.2.840.10008.5.1.4.31",  # Worklist
        "1.2.840.10008.3.1.2.3.3",  # MPPS
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
        "1.2.840.10008.5.1.4.39.1",  # Color Palette
        "1.2.840.10008.5.1.4.43.1",  # Implant templates
        ROOT + "200.1",  # CT Defined Procedure Protocol
        ROOT + "201.2",  # Inventory FIND
        "1.2.840.10008.1.2.1",  # a transfer syntax
        "1.2.840.10008.99.1",  # unknown, of the Standard, no storage
    ],
)
def test_everything_else_is_not(uid: str) -> None:
    assert not is_storage(uid)


def test_transfer_syntaxes_are_those_that_encode_data_sets() -> None:
    assert "1.2.840.10008.1.2" in TRANSFER_SYNTAXES
    assert "1.2.840.10008.1.2.4.66" in TRANSFER_SYNTAXES  # retired
    assert "1.2.840.10008.1.2.6.2" not in TRANSFER_SYNTAXES  # XML
    assert "1.2.840.113619.5.2" not in TRANSFER_SYNTAXES  # GE private


@pytest.mark.parametrize(
    ("uid", "modality"),
    [
        (ROOT + "11.1", "PR"),
        (ROOT + "88.59", "KO"),
        (ROOT + "88.34", "SR"),
        (ROOT + "104.1", "DOC"),
        (ROOT + "66.4", "SEG"),
        (ROOT + "66", "MR"),
        (ROOT + "481.3", "RTSTRUCT"),
        (ROOT + "481.2", "RTDOSE"),
        ("1.3.12.2.1107.5.9.1", "SR"),
    ],
)
def test_what_accompanies_images_is_read_by_no_model(uid: str, modality: str) -> None:
    assert is_read_by_no_model(uid, modality)


@pytest.mark.parametrize(
    ("uid", "modality"),
    [
        (ROOT + "2", "CT"),
        (ROOT + "7", "DX"),
        (ROOT + "1.1", "DX"),
        (ROOT + "481.1", "RTIMAGE"),
        (ROOT + "6.1", "US"),
        (ROOT + "128", "PT"),
        (ROOT + "88888", ""),
    ],
)
def test_images_are_not(uid: str, modality: str) -> None:
    assert not is_read_by_no_model(uid, modality)
