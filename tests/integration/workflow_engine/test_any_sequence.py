"""Whatever is heard and done, in whichever order and how often, what must hold holds."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select

from imaging_store.migrations import upgrade
from imaging_store.schema.workflow import cases, destination_delivery, hold, signature
from message_contracts.case import CaseStatus, Release, Stage
from message_contracts.delivery import AttachmentRequested, ReportRequested
from message_contracts.envelope import Envelope
from message_contracts.identifiers import case_id_of
from message_contracts.intake import ConflictDecision
from service_runtime.database import Database
from tests.integration.workflow_engine.signed_case import AT_EVERY_SIGNATURE, UID
from tests.workflow_journey import Ward, a_model
from workflow_engine.audit import verify
from workflow_engine.commands import (
    Verification,
    Words,
    approve,
    decide_conflict,
    reject,
    release_hold,
    review_as_pharmacist,
    send_back,
    verify_as_doctor,
)
from workflow_engine.on_message import NotAskedFor
from workflow_engine.reasons import DecisionReason, HoldReleaseReason, RejectionReason, ReturnReason
from workflow_engine.refusals import Refusal
from workflow_engine.signing import Decision

# Few people of several roles each, so that one person tries to sign twice.
PEOPLE = st.sampled_from(["Ada", "Bea", "Cleo", "Dora"])
ROLES = st.sampled_from(list(Stage))
VERSIONS = st.integers(1, 4)
OFTEN = ("sign_what_waits", "repeat", "verify", "review", "approve", "complete")
SELDOM = (
    *("opened", "analyzed", "failed", "the_model_answers", "the_next_version_is_read"),
    *("conflict", "release_hold", "sign_all", "send_back", "reject"),
    *("contradict", "decide_conflict", "conflict_settled"),
)
HAPPENINGS = st.sampled_from(OFTEN * 2 + ("sign_what_waits",) * 6 + SELDOM)
LIKELY = st.sampled_from([0.55, 0.9, 0.95])


class AnySequence(RuleBasedStateMachine):
    # One rule draws what happens next: left to itself, the machine forbids most rules in most
    # runs, and no run gets far.
    @rule(
        what=HAPPENINGS,
        name=PEOPLE,
        role=ROLES,
        to=st.none() | ROLES,
        version=VERSIONS,
        decision=st.sampled_from([Decision.AGREE, *Decision]),
        probability=LIKELY,
        pick=st.integers(0, 999),
    )
    def happen(self, what: str, **drawn: object) -> None:
        method = getattr(self, what)
        wanted = inspect.signature(method).parameters
        method(**{key: value for key, value in drawn.items() if key in wanted})

    @initialize()
    def open_ward(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        url = f"sqlite:///{self.folder / 'any.sqlite3'}"
        upgrade(url)
        self.ward = Ward(Database(url), AT_EVERY_SIGNATURE)
        self.ward.register(a_model())
        for version in range(1, 5):
            self.ward.receive(UID, version, modality="MR" if version == 3 else "DX")
        self.heard: list[Envelope] = []
        self.conflicts: list[UUID] = []
        self.version_before = 1
        self.sent_before: set[UUID] = set()

    def teardown(self) -> None:
        if hasattr(self, "ward"):
            self.ward.database.close()
            shutil.rmtree(self.folder)

    # Messages.

    def opened(self) -> None:
        self.heard.append(self.ward.opened(UID))

    def complete(self, version: int) -> None:
        self.heard.append(self.ward.complete(UID, version))

    def analyzed(self, version: int, probability: float) -> None:
        with suppress(NotAskedFor):
            body = self.ward.completed(UID, version, probability=probability)
            self.heard.append(self.ward.deliver(body))

    def failed(self, version: int) -> None:
        with suppress(NotAskedFor):
            self.heard.append(self.ward.deliver(self.ward.failed(UID, version)))

    def the_model_answers(self, probability: float) -> None:
        for asked in self.ward.requested_models()[-1:]:
            self.analyzed(asked.case_version, probability)

    def conflict(self) -> None:
        self.heard.append(self.ward.conflict(UID))

    def contradict(self, pick: int) -> None:
        """Open a conflict; every third is heard of later, or never, and every fifth holds not."""
        self.conflicts.append(self.ward.contradict(UID, heard=bool(pick % 3), holds=bool(pick % 5)))

    def conflict_settled(self, pick: int, version: int) -> None:
        """Say of a conflict that was decided, or of any, that it has been carried out."""
        if self.conflicts:
            waiting = [each.id for each in self.rows(hold) if each.decided_at and not each.ended_at]
            among = waiting or self.conflicts
            made = version if version > 1 and pick % 2 else None
            self.heard.append(self.ward.settle(UID, among[pick % len(among)], made))

    def repeat(self, pick: int) -> None:
        if self.heard:
            before = self.state()
            self.ward.redeliver(self.heard[pick % len(self.heard)])
            assert self.state() == before

    # People.

    def verify(self, role: str, name: str, decision: Decision) -> None:
        words = Verification(decision, "Effusion", "Seen.")
        with suppress(Refusal):
            verify_as_doctor(self.ward.desk, self.ward.request(UID, role, name), words)

    def review(self, role: str, name: str) -> None:
        with suppress(Refusal):
            review_as_pharmacist(self.ward.desk, self.ward.request(UID, role, name), "None.")

    def approve(self, role: str, name: str) -> None:
        with suppress(Refusal):
            approve(self.ward.desk, self.ward.request(UID, role, name))

    def sign_what_waits(self, name: str, decision: Decision) -> None:
        """Reach the far states too: random acts are mostly refused."""
        for row in self.rows(cases):
            if row.on_hold:
                # What that released is looked at before anybody signs.
                self.end_holds()
                return
            match row.stage:
                case Stage.DOCTOR:
                    self.verify(Stage.DOCTOR, name, decision)
                    # There may be nothing to agree with; refused where that has signed.
                    self.verify(Stage.DOCTOR, name, Decision.OVERRIDE)
                case Stage.PHARMACIST:
                    self.review(Stage.PHARMACIST, name)
                case Stage.ADMIN:
                    self.approve(Stage.ADMIN, name)
                case _:
                    self.the_next_version_is_read()

    def end_holds(self) -> None:
        self.release_hold(Stage.ADMIN)
        for pick, conflict_id in enumerate(self.conflicts):
            self.decide_conflict(Stage.ADMIN, pick)
            self.heard.append(self.ward.settle(UID, conflict_id))

    def the_next_version_is_read(self) -> None:
        version = min(4, 1 + max((row.version for row in self.rows(cases)), default=0))
        self.complete(version)
        self.the_model_answers(0.9)

    def sign_all(self) -> None:
        with suppress(Refusal):
            self.ward.signed(UID)

    def send_back(self, role: str, name: str, to: Stage | None) -> None:
        words = Words(ReturnReason.OTHER, "Again.")
        with suppress(Refusal):
            send_back(self.ward.desk, self.ward.request(UID, role, name), words, to)

    def reject(self, role: str, name: str) -> None:
        words = Words(RejectionReason.OTHER, "No.")
        with suppress(Refusal):
            reject(self.ward.desk, self.ward.request(UID, role, name), words)

    def release_hold(self, role: str) -> None:
        words = Words(HoldReleaseReason.OTHER, "Asked.")
        with suppress(Refusal):
            release_hold(self.ward.desk, self.ward.request(UID, role), words)

    def decide_conflict(self, role: str, pick: int) -> None:
        if self.conflicts:
            words = Words(DecisionReason.OTHER, "Asked.")
            with suppress(Refusal):
                decide_conflict(
                    self.ward.desk,
                    self.ward.request(UID, role),
                    self.conflicts[pick % len(self.conflicts)],
                    ConflictDecision.KEEP,
                    words,
                )

    # What must hold.

    def state(self) -> object:
        with self.ward.database.reading() as connection:
            return [
                connection.execute(select(table)).all()
                for table in (cases, signature, destination_delivery, hold)
            ]

    @invariant()
    def a_report_stands_on_three_people(self) -> None:
        for row in self.rows(cases):
            assert (row.report_version is not None) or row.status != CaseStatus.REPORT_READY
            assert (row.report_version is None) or row.status != CaseStatus.REJECTED
            if row.report_version is not None:
                in_force = self.in_force(row.report_version)
                assert {each.stage for each in in_force} == set(Stage)
                assert len({each.user_id for each in in_force}) == len(in_force) == 3

    @invariant()
    def versions_go_forward_and_take_signatures_along(self) -> None:
        for row in self.rows(cases):
            assert row.version >= self.version_before
            self.version_before = row.version
            for each in self.rows(signature):
                if each.voided_at is None and each.case_version != row.version:
                    assert each.case_version in self.reported()

    @invariant()
    def a_case_is_on_hold_while_a_hold_is_open(self) -> None:
        still_open = [row for row in self.rows(hold) if row.ended_at is None]
        for row in self.rows(cases):
            assert row.on_hold == bool(still_open)
            if still_open:
                oldest = min(still_open, key=lambda each: (each.began_at, each.id))
                assert row.hold_reason == oldest.reason
            for each in still_open:
                assert each.until_version is None or each.until_version > row.version

    @invariant()
    def tell_where_it_is(self) -> None:
        for row in self.rows(cases):
            event(f"{row.status}, a report is {'in force' if row.report_version else 'missing'}")

    @invariant()
    def no_stage_is_signed_twice_in_force(self) -> None:
        stages = [
            (row.case_version, row.stage) for row in self.rows(signature) if row.voided_at is None
        ]
        assert len(stages) == len(set(stages))

    @invariant()
    def nothing_leaves_before_its_signature(self) -> None:
        if not hasattr(self, "ward"):
            return
        attached = {
            each.id: (each.body.destination, each.body.case_version)
            for each in self.ward.sent()
            if isinstance(each.body, AttachmentRequested)
        }
        new, self.sent_before = attached.keys() - self.sent_before, set(attached)
        for destination, version in map(attached.__getitem__, new):
            assert self.case().version == version
            assert not self.case().on_hold
            decisions = [each.decision for each in self.in_force(version) if each.decision]
            if destination == Release.AI_ANALYZED:
                assert decisions in ([], ["agree"])
            else:
                assert decisions == ["agree"]
            if destination == Release.REPORT_READY:
                assert self.case().report_version == version
        reported = self.reported()
        assert len(reported) == len(set(reported))
        for version in reported:
            # A report that another took the place of was signed all the same.
            assert len(self.in_force(version)) == 3

    @invariant()
    def the_history_verifies(self) -> None:
        if hasattr(self, "ward"):
            with self.ward.database.reading() as connection:
                assert verify(connection).faults == ()

    def reported(self) -> list[int]:
        return [
            each.body.case_version
            for each in self.ward.sent()
            if isinstance(each.body, ReportRequested)
        ]

    def case(self):
        return self.ward.case(UID)

    def in_force(self, version: int):
        return [
            row
            for row in self.rows(signature)
            if row.case_version == version and row.voided_at is None
        ]

    def rows(self, table):
        if not hasattr(self, "ward"):
            return []
        with self.ward.database.reading() as connection:
            rows = connection.execute(select(table)).all()
        assert all(row.case_id == case_id_of(UID) for row in rows if table is not cases)
        return rows


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    # Each step commits durably: shrinking thirty of them would take longer than a test may.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
