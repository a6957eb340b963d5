from datetime import UTC, datetime, timedelta
from io import BytesIO

from dicom_listener.arrival import Arrival
from dicom_listener.index import Entry
from dicom_listener.index_messages import group_message, group_of
from dicom_listener.instance_header import InstanceHeader, parse_header
from dicom_listener.open_associations import OpenAssociation
from imaging_store.instances import Kept
from tests.unit.dicom_listener.test_instance_header import EXPLICIT, a_slice, encoded


def header_of(number: int) -> InstanceHeader:
    ds = a_slice()
    ds.SOPInstanceUID, ds.InstanceNumber = f"1.2.3.{number}", number
    header = parse_header(BytesIO(encoded(ds)), EXPLICIT)
    assert header is not None
    return header


def an_arrival(number: int) -> Arrival:
    header = header_of(number)
    return Arrival(
        header=header,
        kept=Kept(f"instances/{header.sop_instance_uid}.dcm", 2 * number, f"{number:032}"),
        transfer_syntax_uid=EXPLICIT,
        calling_ae_title="MODALITY",
        called_ae_title="COUNTERSIGN",
        issuer_of_patient_id="LOCAL",
        started="2026-07-04",
        at=datetime(2026, 7, 4, 12, number, tzinfo=UTC),
        quiet_period=timedelta(seconds=30),
        rejected_studies=("1.2.9",) * number,
        is_urgent=number == 1,
    )


def test_a_group_comes_as_it_was_sent() -> None:
    group: list[Entry] = [an_arrival(number) for number in range(3)]

    received = group_of(group_message(group))

    assert received == group
    assert [type(each) for each in received] == [Arrival] * 3


def test_what_came_over_an_association_still_belongs_to_it() -> None:
    association = OpenAssociation("1", "MODALITY", "process", "1.2.3")
    arrival = an_arrival(1)._replace(association=association)

    came, ended = group_of(group_message([arrival, association]))

    assert isinstance(came, Arrival)
    assert isinstance(ended, OpenAssociation)
    assert came.association is ended
    assert ended.id == "1"


def test_the_instances_of_a_series_share_what_they_have_in_common_on_both_sides() -> None:
    one, other = an_arrival(1), an_arrival(2)
    assert one.header.shared is other.header.shared

    received = group_of(group_message([one, other]))

    headers = [each.header for each in received if isinstance(each, Arrival)]
    assert headers[0].shared is headers[1].shared


def test_an_instance_adds_little_to_the_message_of_its_series() -> None:
    group = [an_arrival(number) for number in range(1, 9)]

    of_each_alone = sum(len(group_message([arrival])) for arrival in group)

    assert len(group_message(group)) < of_each_alone / 2
