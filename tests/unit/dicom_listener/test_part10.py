from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, file_meta

uids = st.from_regex(r"[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}){1,5}", fullmatch=True)
ae_titles = st.from_regex(r"[A-Z][A-Z0-9_]{0,15}", fullmatch=True)


@given(sop_class=uids, instance=uids, source=st.one_of(st.just(""), ae_titles))
def test_pydicom_reads_what_was_said(sop_class: str, instance: str, source: str) -> None:
    data = file_meta(sop_class, instance, "1.2.840.10008.1.2.1", source)

    meta = dcmread(BytesIO(data)).file_meta

    assert meta.MediaStorageSOPClassUID == sop_class
    assert meta.MediaStorageSOPInstanceUID == instance
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.get("SourceApplicationEntityTitle", "") == source
    assert meta.FileMetaInformationGroupLength == len(data) - 132 - 12
