"""PACS that fail in every way: tried again, or a dead letter that says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from admin_api import destinations as pauses
from inference_worker.result_attributes import ResultObject
from message_contracts.delivery import AttachmentDelivered, AttachmentFailed
from service_runtime.database import Database
from service_runtime.messaging import dead_letters
from tests.integration.dicom_sender.a_pacs import a_pacs
from tests.integration.dicom_sender.running_sender import PATIENT, QUICK, RunningSender, at
from tests.peers.processes import free_port

ONCE, OFTEN = 1, QUICK.attempts
HOW = {
    "away": (OFTEN, "nobody answers for away: Connection refused"),
    "rejecting": (
        OFTEN,
        "rejecting rejected the association: Called AE title not recognised (1/1/7)",
    ),
    "aborting": (OFTEN, "aborting ended the association without an answer"),
    "full": (OFTEN, "full did not take 2 of 2 instances: 0xA700"),
    "refusing": (ONCE, "refusing did not take 2 of 2 instances: 0xA900"),
}
"""How often each is tried, and the reason that is shown."""


class Failing:
    """PACS beside each other, each of which fails in a way of its own until it is mended."""

    def __init__(self) -> None:
        self.mended = False
        self.received: dict[str, list[str]] = {name: [] for name in HOW}
        self.ports = {name: free_port() for name in HOW}
        self.stack = ExitStack()

    def open(self, *names: str) -> None:
        """Begin to listen."""
        for name in names:
            self.stack.enter_context(a_pacs(partial(self.answer, name), port=self.ports[name]))

    def answer(self, name: str, event: Any) -> int:
        self.received[name].append(str(event.request.AffectedSOPInstanceUID))
        if self.mended:
            return 0
        if name == "aborting":
            event.assoc.abort()
        return {"full": 0xA700, "refusing": 0xA900}.get(name, 0)


@pytest.fixture
def failing() -> Iterator[Failing]:
    made = Failing()
    with made.stack:
        yield made


def test_every_way_of_failing_is_a_dead_letter_with_its_reason_whose_replay_delivers(
    run: Callable[..., RunningSender],
    failing: Failing,
    database: Database,
    results: list[ResultObject],
    tmp_path: Path,
) -> None:
    names = list(HOW)
    # The one that rejects is called by another title than its own.
    titles = {"rejecting": "ELSE"}
    destinations = [
        at(failing.ports[name], name, ae_title=titles.get(name, "ORTHANC")) for name in names
    ]
    failing.open("aborting", "full", "refusing")
    rejecting = ExitStack()
    rejecting.enter_context(
        a_pacs(lambda _event: 0, require_called_ae_title=True, port=failing.ports["rejecting"])
    )
    sender = run(*destinations)
    for name in names:
        sender.ask(name)
    for name in names:
        sender.wait_for(AttachmentFailed, name)
    letters = {
        each.queue.removeprefix("attachment/"): each for each in dead_letters.list_open(database)
    }
    shown = {each.name: each for each in pauses.list_all(database, tuple(destinations))}
    failing.mended = True
    failing.received = {name: [] for name in names}
    rejecting.close()
    failing.open("away", "rejecting")
    for letter in letters.values():
        with database.transaction() as transaction:
            dead_letters.replay(transaction, letter.id, who="test", why="it was mended")
    for name in names:
        sender.wait_for(AttachmentDelivered, name)

    assert {name: (each.attempts, each.reason) for name, each in letters.items()} == HOW
    assert {name: (each.failure, each.dead_letters) for name, each in shown.items()} == {
        name: (reason, 1) for name, (_, reason) in HOW.items()
    }
    told = {name: sender.told(AttachmentFailed, name) for name in names}
    assert {name: [each.reason for each in failed] for name, failed in told.items()} == {
        name: [reason] for name, (_, reason) in HOW.items()
    }
    uids = [each.sop_instance_uid for each in results]
    assert failing.received == dict.fromkeys(names, uids)
    assert dead_letters.list_open(database) == []
    assert "Jörg" not in (tmp_path / "sender.log").read_text()


def test_a_failure_that_comes_back_after_another_one_is_told_anew(
    run: Callable[..., RunningSender], database: Database
) -> None:
    statuses = iter((0xA900, 0xA900, 0xC000, 0xC000, 0xA900, 0xA900))
    with a_pacs(lambda _event: next(statuses)) as port:
        sender = run(at(port))
        sender.ask("archive")

        told = []
        for times in (1, 2, 3):
            sender.wait_for(AttachmentFailed, "archive", times=times)
            told.append(sorted(each.reason for each in sender.told(AttachmentFailed, "archive")))
            [letter] = dead_letters.list_open(database)
            with database.transaction() as transaction:
                dead_letters.replay(transaction, letter.id, who="test", why="it was changed")

    refused, not_understood = (
        f"archive did not take 2 of 2 instances: {code}" for code in ("0xA900", "0xC000")
    )
    assert told == [
        [refused],
        [refused, not_understood],
        [refused, refused, not_understood],
    ]


def test_warnings_are_a_delivery(run: Callable[..., RunningSender], database: Database) -> None:
    received: list[str] = []

    def doubt(event: Any) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0xB000

    with a_pacs(doubt) as port:
        sender = run(at(port))
        sender.ask("archive")
        sender.wait_for(AttachmentDelivered, "archive")
        # Asked for once more, it is told and not sent.
        sender.ask("archive", number=1)
        sender.wait_for(AttachmentDelivered, "archive", times=2)

    assert len(received) == 2
    for told in sender.told(AttachmentDelivered, "archive"):
        assert [each.status for each in told.outcomes] == [0xB000, 0xB000]
    assert dead_letters.list_open(database) == []


def test_a_full_pacs_gets_the_rest_when_it_has_room(
    run: Callable[..., RunningSender], results: list[ResultObject]
) -> None:
    received: list[str] = []

    def full_at_first(event: Any) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0xA700 if len(received) in {2, 3} else 0

    with a_pacs(full_at_first) as port:
        sender = run(at(port, retry=PATIENT))
        sender.ask("archive")
        sender.wait_for(AttachmentDelivered, "archive")

    first, second = (each.sop_instance_uid for each in results)
    assert received == [first, second, second, second]


def test_a_destination_that_is_no_more_is_given_up_and_told(
    run: Callable[..., RunningSender], database: Database
) -> None:
    sender = run(at(free_port(), "other"))

    sender.ask("archive")
    sender.wait_for(AttachmentFailed, "archive")

    [letter] = dead_letters.list_open(database)
    assert letter.reason == ("archive is no destination; COUNTERSIGN_PACS_DESTINATIONS lists them")
