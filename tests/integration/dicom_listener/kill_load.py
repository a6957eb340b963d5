"""A load over eight associations during which processes are killed, and what must hold after it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from imaging_store.schema.ingest import instance, study
from imaging_store.schema.workflow import history
from message_contracts import catalogue
from message_contracts.envelope import Envelope
from message_contracts.ingest import StudyOpened, StudyReceived, StudyUpdated
from message_contracts.message import Message
from service_runtime.database import Database
from service_runtime.messaging.tables import message
from tests.integration.dicom_listener.listener import CT, Listener, a_slice, sendable
from tests.peers.processes import wait_until
from tests.peers.raw_scu import AssociationLost, RawAssociation
from workflow_engine.on_message import WorkflowHandler

ASSOCIATIONS = 8
_STUDY_INSTANCES = 25
_EXPLICIT = "1.2.840.10008.1.2.1"
_RECONNECT_S = 60
# An empty private sequence of undefined length and trailing padding: senders that encode anew
# write neither so.
_ODD_END = b"\xfc\xff\xfc\xffOB\0\0\x06\0\0\0" + b"\0" * 6


@dataclass(frozen=True)
class Sent:
    """One data set, byte for byte."""

    sop_instance_uid: str
    data: bytes


@dataclass
class KillLoad:
    """So many instances, in studies that two associations each send at once."""

    listener: Listener
    chance: random.Random
    count: int
    kills: Counter[str] = field(default_factory=Counter)
    answered: list[Sent] = field(default_factory=list)

    def run(self) -> None:
        """Send everything until it has been answered 0000, killing meanwhile."""
        shares = self._shares()
        modalities = [threading.Thread(target=self._modality, args=(share,)) for share in shares]
        for thread in modalities:
            thread.start()
        while any(thread.is_alive() for thread in modalities):
            target = len(self.answered) + self.chance.randrange(20, 240)
            wait_until(
                lambda target=target: (
                    len(self.answered) >= target
                    or not any(thread.is_alive() for thread in modalities)
                ),
                timeout_s=120,
                what="more answers",
            )
            self._kill_something()
        assert len(self.answered) == self.count
        wait_until(self._everything_is_announced, timeout_s=30, what="announcements")

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
        left = list(reversed(waiting))
        while left:
            try:
                with self._association() as association:
                    while left:
                        sent = left[-1]
                        status = association.store(CT, _EXPLICIT, sent.sop_instance_uid, sent.data)
                        if status == 0x0000:
                            self.answered.append(left.pop())
            except AssociationLost:
                continue

    def _association(self) -> RawAssociation:
        def connected() -> RawAssociation | None:
            try:
                return RawAssociation(self.listener.port, [(CT, _EXPLICIT)])
            except OSError:
                return None

        association = wait_until(connected, timeout_s=_RECONNECT_S, what="an association")
        assert association is not None
        return association

    def _kill_something(self) -> None:
        children = self.listener.children
        if self.chance.random() < 0.2 or not children:
            self.kills["parent"] += 1
            os.kill(self.listener.process.pid, signal.SIGKILL)
            wait_until(
                lambda: not any(Path(f"/proc/{child}").exists() for child in children),
                timeout_s=30,
                what="the end of the children",
            )
            self.listener.start()
        else:
            self.kills["child"] += 1
            self.listener.kill_child(self.chance.randrange(len(children)))

    def _everything_is_announced(self) -> bool:
        return all(
            row.pending_since is None and row.version > 0 for row in self.listener.rows(study)
        )

    def nothing_is_lost(self) -> None:
        """Assert that what was answered for is in the index and, byte for byte, in the store."""
        indexed = {row.sop_instance_uid: row for row in self.listener.rows(instance)}
        assert len(indexed) == self.count
        for sent in self.answered:
            row = indexed[sent.sop_instance_uid]
            assert row.size_bytes == len(sent.data)
            assert row.sha256 == hashlib.sha256(sent.data).hexdigest()
            assert self.listener.store.read(row.key).endswith(sent.data)
        wait_until(lambda: not self.listener.unfinished(), timeout_s=10, what="nothing unfinished")

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
        rows = sorted(self.listener.rows(message), key=lambda row: row.created_at)
        envelopes = [catalogue.decode(row.body) for row in rows]
        return [envelope for envelope in envelopes if isinstance(envelope.body, kinds)]
