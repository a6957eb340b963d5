"""What an entry of the registry may hold."""

import pytest

from admin_api.application_entities import InvalidApplicationEntity, checked


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"networks": ["10.1.2.3/24"]}, "networks: not an address, or a network"),
        ({"networks": ["ct1.hospital.example"]}, "networks: not an address, or a network"),
        ({"networks": ["10.0.0.1"] * 65}, "networks"),
        ({"quiet_period_s": 0}, "quiet_period_s"),
        ({"quiet_period_s": float("nan")}, "quiet_period_s"),
        ({"default_issuer_of_patient_id": "A\\B"}, "default_issuer_of_patient_id"),
        ({"default_issuer_of_patient_id": ""}, "default_issuer_of_patient_id"),
        ({"time_zone": "Vienna"}, "time_zone: not an IANA time zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone: not an IANA time zone"),
        ({"urgency": "stat"}, "urgency"),
        ({"max_associations": 0}, "max_associations"),
        ({"host": "ct1"}, "host and port: give both or neither"),
        ({"port": 104}, "host and port: give both or neither"),
        ({"host": "ct1", "port": 0}, "port"),
        ({"host": "http://ct1", "port": 104}, "host"),
        ({"quiet_time": 3}, "quiet_time"),
    ],
)
def test_what_cannot_be_taken_is_named(entry: dict[str, object], names: str) -> None:
    with pytest.raises(InvalidApplicationEntity, match=f"^{names}"):
        checked(**entry)


def test_every_field_at_fault_has_its_line() -> None:
    with pytest.raises(InvalidApplicationEntity) as raised:
        checked(quiet_period_s=-1, time_zone="Vienna")

    assert [line.partition(":")[0] for line in str(raised.value).splitlines()] == [
        "quiet_period_s",
        "time_zone",
    ]


def test_a_single_address_is_a_network() -> None:
    assert checked(networks=["10.0.0.7", "fe80::1"]).networks == ("10.0.0.7/32", "fe80::1/128")
