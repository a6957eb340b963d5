"""A load over eight associations during which processes are killed, and what must hold after it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import xxhash
from sqlalchemy import select

from imaging_store.schema.ingest import instance, study
from imaging_store.schema.workflow import history
from message_contracts.envelope import Envelope
from message_contracts.ingest import StudyOpened, StudyReceived, StudyUpdated
from message_contracts.message import Message
from service_runtime.database import Database
from tests.integration.dicom_listener.listener import CT, Listener, a_slice, sendable
from tests.peers.processes import is_alive, wait_until
from tests.peers.raw_scu import AssociationLost, RawAssociation
from workflow_engine.on_message import WorkflowHandler

ASSOCIATIONS = 8
_STUDY_INSTANCES = 25
_INSTANCES_PER_KILL = 160
_OVERSHOOT = 50
"""Answers that may come between the moment of a kill and its end; who would send more waits."""
_LONGEST_DELAY_S = 0.02
_EXPLICIT = "1.2.840.10008.1.2.1"
_PATIENCE_S = 100
# An empty private sequence of undefined length and trailing padding: senders that encode anew
# write neither so.
_ODD_END = b"\xfc\xff\xfc\xffOB\0\0\x06\0\0\0" + b"\0" * 6


@dataclass(frozen=True)
class Sent:
    """One data set, byte for byte."""

    sop_instance_uid: str
    data: bytes


@dataclass(frozen=True)
class Kill:
    """A process to kill, so many answers after the last kill and the start that followed it."""

    answers: int
    victim: str


def schedule(count: int, chance: random.Random) -> list[Kill]:
    """Draw kills of a load of ``count`` instances, of both sorts, all before its last answers."""
    number = count // _INSTANCES_PER_KILL
    assert number >= 4
    moments = [0, *sorted(chance.sample(range(1, count - number * _OVERSHOOT), number))]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    drawn = ("parent" if chance.random() < 0.2 else "child" for _ in range(number - 2))
    victims = ["parent", "child", *drawn]
    chance.shuffle(victims)
    return [Kill(gap, victim) for gap, victim in zip(gaps, victims, strict=True)]


@dataclass
class KillLoad:
    """So many instances, in studies that two associations each send at once."""

    listener: Listener
    chance: random.Random
    count: int
    kills: Counter[str] = field(default_factory=Counter)
    answered: list[Sent] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _begun: int = 0
    """Instances that are answered or under way."""
    _limit: int = 0
    """Instances that may be begun until the next kill is over."""

    def run(self) -> None:
        """Send everything until it has been answered 0000, killing meanwhile."""
        shares = self._shares()
        modalities = [
            threading.Thread(target=self._modality, args=(share,), daemon=True) for share in shares
        ]
        kills = schedule(self.count, self.chance)
        for thread in modalities:
            thread.start()
        for kill in kills:
            target = len(self.answered) + kill.answers
            self._wait_for_answers(target, limit=target + _OVERSHOOT)
            # Not always with an answer: at any moment of the instances that are under way.
            time.sleep(self.chance.uniform(0, _LONGEST_DELAY_S))
            self._kill(kill.victim)
        self._wait_for_answers(self.count, limit=self.count)
        for thread in modalities:
            thread.join()
        assert self.kills.total() == len(kills)
        wait_until(
            lambda: not self._not_indexed(),
            timeout_s=_PATIENCE_S,
            what="all that was answered 0000 to be in the index",
        )
        wait_until(self._everything_is_announced, timeout_s=_PATIENCE_S, what="announcements")

    def _wait_for_answers(self, target: int, *, limit: int) -> None:
        with self._changed:
            self._limit = limit
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: len(self.answered) >= target, _PATIENCE_S)

    def _shares(self) -> list[list[Sent]]:
        shares: list[list[Sent]] = [[] for _ in range(ASSOCIATIONS)]
        template = a_slice()
        for number in range(self.count):
            study_number = number // _STUDY_INSTANCES
            slice_ = a_slice(
                StudyInstanceUID=f"{template.StudyInstanceUID[:50]}.{study_number}",
                SeriesInstanceUID=f"{template.SeriesInstanceUID[:50]}.{study_number}",
                SOPInstanceUID=f"{template.SOPInstanceUID[:50]}.{number}",
                InstanceNumber=number,
                PixelData=self.chance.randbytes(2 * self.chance.randrange(64, 4096)),
            )
            sent = Sent(str(slice_.SOPInstanceUID), sendable(slice_).data + _ODD_END)
            # Two associations share each study.
            shares[(2 * study_number + number % 2) % ASSOCIATIONS].append(sent)
        return shares

    def _modality(self, waiting: list[Sent]) -> None:
        left = self._when_they_may(waiting)
        sent = next(left, None)
        while sent is not None:
            try:
                with self._association() as association:
                    while sent is not None:
                        status = association.store(CT, _EXPLICIT, sent.sop_instance_uid, sent.data)
                        if status == 0x0000:
                            with self._changed:
                                self.answered.append(sent)
                                self._changed.notify_all()
                            sent = next(left, None)
            except AssociationLost:
                continue

    def _when_they_may(self, waiting: list[Sent]) -> Iterator[Sent]:
        """Give one after the other, each as soon as it may be begun."""
        for sent in waiting:
            with self._changed:
                self._changed.wait_for(lambda: self._begun < self._limit)
                self._begun += 1
            yield sent

    def _association(self) -> RawAssociation:
        def connected() -> RawAssociation | None:
            try:
                return RawAssociation(self.listener.port, [(CT, _EXPLICIT)])
            except OSError:
                return None

        association = wait_until(connected, timeout_s=_PATIENCE_S, what="an association")
        assert association is not None
        return association

    def _kill(self, victim: str) -> None:
        children = wait_until(
            self.listener.living_children, timeout_s=_PATIENCE_S, what="a process to kill"
        )
        if victim == "parent":
            os.kill(self.listener.process.pid, signal.SIGKILL)
            wait_until(
                lambda: not any(map(is_alive, children)),
                timeout_s=_PATIENCE_S,
                what="the end of the children",
            )
            self.listener.start()
        else:
            os.kill(self.chance.choice(children), signal.SIGKILL)
        self.kills[victim] += 1

    def _everything_is_announced(self) -> bool:
        return all(
            row.pending_since is None and row.version > 0 for row in self.listener.rows(study)
        )

    def _not_indexed(self) -> set[str]:
        indexed = {row.sop_instance_uid for row in self.listener.rows(instance)}
        return {sent.sop_instance_uid for sent in self.answered} - indexed

    def nothing_is_lost(self) -> None:
        """Assert that what was answered for is in the index and, byte for byte, in the store."""
        indexed = {row.sop_instance_uid: row for row in self.listener.rows(instance)}
        for sent in self.answered:
            row = indexed[sent.sop_instance_uid]
            assert row.size_bytes == len(sent.data)
            assert row.digest == xxhash.xxh3_128_hexdigest(sent.data)
            assert self.listener.store.read(row.key).endswith(sent.data)
        wait_until(
            lambda: not self.listener.unfinished(),
            timeout_s=_PATIENCE_S,
            what="nothing unfinished",
        )

    def every_version_is_announced_once(self) -> None:
        """Assert that each study version has one message, and makes one version of its case."""
        versions = {row.study_instance_uid: row.version for row in self.listener.rows(study)}
        said = Counter(
            (each.body.study_instance_uid, each.body.study_version)
            for each in self._messages(StudyReceived, StudyUpdated)
        )
        expected = {(uid, n + 1) for uid, last in versions.items() for n in range(last)}
        assert set(said) == expected
        assert set(said.values()) == {1}
        database = Database(self.listener.database_url)
        handler = WorkflowHandler(destinations=())
        for envelope in self._messages(StudyOpened, StudyReceived, StudyUpdated):
            for _ in range(self.chance.choice((1, 1, 2))):
                effect = handler(envelope)
                with database.transaction() as transaction:
                    effect(transaction)
        with database.reading() as connection:
            entries = connection.execute(
                select(history.c.case_id, history.c.case_version, history.c.details)
            ).all()
        database.close()
        begun = Counter(
            (case_id, version) for case_id, version, details in entries if "completion" in details
        )
        assert len(begun) == len(expected)
        assert set(begun.values()) == {1}

    def _messages(self, *kinds: type[Message]) -> list[Envelope]:
        return [each for each in self.listener.envelopes() if isinstance(each.body, kinds)]
