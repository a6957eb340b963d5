"""pynetdicom is subclassed, so that its private names are relied on: this says which."""

import inspect

import pynetdicom
import pytest
from pynetdicom import (
    _config,
    acse,
    association,
    dimse,
    dimse_messages,
    dul,
    fsm,
    presentation,
    timer,
    transport,
)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (dul.DULServiceProvider, {"_process_recv_primitive", "_read_pdu_data", "stop_dul"}),
        (dul.DULServiceProvider, {"_decode_pdu"}),
        (dul.DULServiceProvider, {"send_pdu", "receive_pdu", "start", "is_alive", "_send"}),
        (acse.ACSE, {"_negotiate_as_acceptor", "send_reject", "send_release"}),
        (acse.ACSE, {"is_release_requested", "is_aborted"}),
        (association.Association, {"run_reactor", "_run_reactor", "_serve_request", "kill"}),
        (transport.AssociationSocket, {"_shutdown_socket", "recv", "send", "close"}),
        (fsm.StateMachine, {"do_action", "transition"}),
        (dimse_messages.DIMSEMessage, {"decode_msg", "message_to_primitive"}),
        (dimse.DIMSEServiceProvider, {"send_msg", "get_msg"}),
        (association.ServiceUser, {"role_selection", "user_information"}),
        (timer.Timer, {"expired", "remaining"}),
    ],
)
def test_the_methods_relied_on_exist(owner: type, names: set[str]) -> None:
    assert names <= set(dir(owner))


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (dul.DULServiceProvider, {"_kill_thread", "artim_timer", "event_queue"}),
        (dul.DULServiceProvider, {"to_provider_queue", "to_user_queue", "state_machine"}),
        (association.Association, {"_accepted_cx", "_rejected_cx", "_dul_ready", "_kill"}),
        (association.Association, {"is_released", "is_rejected", "is_aborted", "acse", "dul"}),
        (timer.Timer, {"_start_time", "_end_time"}),
        (presentation.PresentationContext, {"_as_scp", "_as_scu"}),
        (transport.AssociationSocket, {"socket", "_is_connected"}),
    ],
)
def test_the_attributes_relied_on_are_set_at_the_beginning(owner: type, names: set[str]) -> None:
    source = inspect.getsource(owner.__init__)

    assert {name for name in names if f"self.{name}" not in source} == set()


def test_the_reactor_calls_what_is_overridden() -> None:
    reactor = inspect.getsource(association.Association.run_reactor)

    for call in ("self.dul.start()", "self.dul.receive_pdu(wait=True", "self._run_reactor()"):
        assert call in reactor
    assert hasattr(_config, "LOG_HANDLER_LEVEL")


def test_what_an_acceptance_does_beside_sending_it_is_to_go_to_state_6() -> None:
    action = inspect.getsource(fsm.AE_7)

    assert [line.strip() for line in action.split('"""')[2].splitlines() if line.strip()] == [
        "# Received A-ASSOCIATE (AC) primitive from local user",
        'primitive = cast("A_ASSOCIATE", dul.to_provider_queue.get(False))',
        "# Send A-ASSOCIATE-AC PDU",
        "dul._send(A_ASSOCIATE_AC(primitive))",
        'return "Sta6"',
    ]


def test_the_version_is_the_one_that_was_read() -> None:
    assert pynetdicom.__version__.startswith("3.0.")
