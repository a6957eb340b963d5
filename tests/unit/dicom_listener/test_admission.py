"""Who may open an association."""

from dataclasses import replace
from datetime import UTC, timedelta
from ipaddress import ip_address, ip_network
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.admission import (
    APPLICATION_CONTEXT_NAME,
    AssociationRequest,
    Rejection,
    is_ae_title,
    rejection_of,
)
from dicom_listener.peers import Entry, Listed, Peer, peer_of
from message_contracts.inference import Urgency

NOBODY = Listed(None, is_anybody=False)
OTHERS = Listed(None, is_anybody=True)
CT1 = AssociationRequest("CT1", "COUNTERSIGN", APPLICATION_CONTEXT_NAME, "127.0.0.1")

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
titles = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=16)


def listed(*networks: str) -> Listed:
    return Listed(Entry(networks=[ip_network(each) for each in networks]), is_anybody=True)


def decide(request: AssociationRequest, registry: Listed) -> Rejection | None:
    return rejection_of(request, "COUNTERSIGN", registry)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_while_nobody_is_listed_anyone_may_from_loopback(address: str) -> None:
    assert decide(replace(CT1, address=address), NOBODY) is None


@pytest.mark.parametrize("address", ["10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "0.0.0.0"])
def test_while_nobody_is_listed_nobody_may_from_elsewhere(address: str) -> None:
    assert decide(replace(CT1, address=address), NOBODY) is Rejection.ADDRESS


def test_once_others_are_listed_loopback_is_nobody_special() -> None:
    assert decide(CT1, OTHERS) is Rejection.CALLING_AE_TITLE


@given(addresses)
def test_who_is_listed_without_networks_may_call_from_anywhere(address: object) -> None:
    assert decide(replace(CT1, address=str(address)), listed()) is None


@given(
    addresses, addresses.flatmap(lambda a: st.integers(0, a.max_prefixlen).map(lambda n: (a, n)))
)
def test_who_is_listed_may_call_from_its_networks_only(
    address: object, network: tuple[object, int]
) -> None:
    listed_network = ip_network(f"{network[0]}/{network[1]}", strict=False)
    caller = ip_address(str(address))
    mapped = getattr(caller, "ipv4_mapped", None) or caller

    rejection = decide(replace(CT1, address=str(address)), listed(str(listed_network)))

    assert (rejection is None) == (mapped in listed_network)
    assert rejection in {None, Rejection.ADDRESS}


@given(titles)
def test_only_our_own_title_may_be_called(title: str) -> None:
    rejection = decide(replace(CT1, called_ae_title=title.strip()), NOBODY)

    assert (rejection is Rejection.CALLED_AE_TITLE) == (title.strip() != "COUNTERSIGN")


@pytest.mark.parametrize("title", ["", "  ", "M\xdcLLER", "A\\B", "A\tB", "A\x7f"])
def test_a_calling_title_that_is_none_is_not_recognized(title: str) -> None:
    rejection = decide(replace(CT1, calling_ae_title=title), NOBODY)

    assert rejection is Rejection.CALLING_AE_TITLE
    assert not is_ae_title(title)


@pytest.mark.parametrize("name", ["", "1.2.840.10008.3.1.1.2"])
def test_another_application_context_is_not_supported(name: str) -> None:
    rejection = decide(replace(CT1, application_context_name=name), NOBODY)

    assert rejection is Rejection.APPLICATION_CONTEXT


def test_rejections_are_those_of_ps3_8() -> None:
    assert {each.name: (each.result, each.source, each.diagnostic) for each in Rejection} == {
        "APPLICATION_CONTEXT": (1, 1, 2),
        "CALLED_AE_TITLE": (1, 1, 7),
        "CALLING_AE_TITLE": (1, 1, 3),
        "ADDRESS": (1, 1, 3),
        "TOO_MANY": (2, 3, 2),
        "TOO_MANY_OF_PEER": (2, 3, 2),
        "DRAINING": (2, 3, 1),
        "UNDECIDED": (2, 3, 1),
    }


SITE = Peer("", timedelta(seconds=30), "LOCAL", UTC)


def test_where_an_entry_says_nothing_the_site_does() -> None:
    assert peer_of("CT1", None, SITE) == replace(SITE, ae_title="CT1")
    assert peer_of("CT1", Entry(), SITE) == replace(SITE, ae_title="CT1")


def test_what_an_entry_says_holds() -> None:
    vienna = ZoneInfo("Europe/Vienna")
    entry = Entry(
        quiet_period=timedelta(seconds=5),
        default_issuer_of_patient_id="CLINIC",
        zone=vienna,
        urgency=Urgency.URGENT,
        commitment=True,
    )

    assert peer_of("CT1", entry, SITE) == Peer(
        "CT1", timedelta(seconds=5), "CLINIC", vienna, Urgency.URGENT, commitment=True
    )
