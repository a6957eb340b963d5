from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dicom_listener.completion import (
    Evidence,
    Limits,
    Listing,
    completed_by,
    has_all_listed,
    listing,
)
from dicom_listener.procedure_step import ProcedureStep, StepStatus
from dicom_listener.study_progress import (
    NOT_BEGUN,
    Progress,
    after_arrival,
    version_of_arrival,
)
from message_contracts.ingest import CompletionReason

NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)
LIMITS = Limits(association_timeout=timedelta(seconds=300), deadline=timedelta(hours=4))
WAITING = Progress(version=0, pending_since=NOON, quiet_until=NOON + timedelta(seconds=30))


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def a_step(status: StepStatus, *sop_instance_uids: str) -> ProcedureStep:
    return ProcedureStep(status, ("1.2",), sop_instance_uids)


@pytest.mark.parametrize(("seconds", "reason"), [(29.9, None), (30, CompletionReason.QUIET)])
def test_a_study_is_complete_when_it_has_been_quiet(
    seconds: float, reason: CompletionReason | None
) -> None:
    assert completed_by(WAITING, Evidence(), at(seconds), LIMITS) is reason


def test_an_association_that_may_send_more_holds_a_study_open() -> None:
    held = Evidence(is_sent_to=True)

    assert completed_by(WAITING, held, at(31), LIMITS) is None
    assert completed_by(WAITING, held, at(329), LIMITS) is None


def test_an_association_holds_no_study_open_for_longer_than_its_timeout() -> None:
    assert (
        completed_by(WAITING, Evidence(is_sent_to=True), at(330), LIMITS) is CompletionReason.QUIET
    )


def test_the_deadline_passes_over_an_open_association() -> None:
    fresh = Progress(0, pending_since=at(-4 * 3600), quiet_until=at(30))

    assert completed_by(fresh, Evidence(is_sent_to=True), NOON, LIMITS) is CompletionReason.DEADLINE


def test_what_steps_list_passes_over_quiet_and_open_associations() -> None:
    evidence = Evidence(is_sent_to=True, has_all_listed=True)

    assert completed_by(WAITING, evidence, at(0), LIMITS) is CompletionReason.MPPS


def test_a_study_that_waits_for_nothing_is_not_announced_again() -> None:
    evidence = Evidence(has_all_listed=True)

    assert completed_by(Progress(version=1), evidence, at(10**6), LIMITS) is None


def test_steps_of_one_study_are_taken_together() -> None:
    listed = listing([a_step(StepStatus.COMPLETED, "1", "2"), a_step(StepStatus.COMPLETED, "3")])

    assert listed == Listing(("1", "2", "3"), frozenset("123"))
    assert not has_all_listed(listed, {"1", "2"}, {"1", "2"})
    assert has_all_listed(listed, {"1", "2", "3"}, {"1", "2", "3"})


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [a_step(StepStatus.COMPLETED)],
        [a_step(StepStatus.DISCONTINUED, "1")],
        [a_step(StepStatus.COMPLETED, "1"), a_step(StepStatus.IN_PROGRESS)],
    ],
)
def test_what_lists_nothing_to_come_or_goes_on_says_nothing(
    steps: list[ProcedureStep],
) -> None:
    assert listing(steps) is None


def test_what_a_discontinued_step_lists_is_accounted_for_and_not_awaited() -> None:
    listed = listing([a_step(StepStatus.COMPLETED, "1"), a_step(StepStatus.DISCONTINUED, "2", "3")])

    assert listed is not None
    assert has_all_listed(listed, {"1"}, {"1"})
    assert has_all_listed(listed, {"1", "2"}, {"1", "2"})


def test_an_image_that_no_step_lists_may_have_followers() -> None:
    listed = Listing(("1",), frozenset("1"))

    assert not has_all_listed(listed, {"1", "9"}, {"9"})


class Study(RuleBasedStateMachine):
    """A study, its associations and its steps, beside what an observer knows of them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.progress = NOT_BEGUN
        self.arrivals: list[tuple[datetime, timedelta, str, int]] = []
        self.announced: list[tuple[int, CompletionReason]] = []
        self.is_open = False
        self.steps: list[ProcedureStep] = []

    @initialize()
    def first(self) -> None:
        self.arrive(quiet_period_s=30, makes_version=True)

    @rule(quiet_period_s=st.sampled_from([5, 30, 200]), makes_version=st.booleans())
    def arrive(self, quiet_period_s: float, *, makes_version: bool) -> None:
        version = version_of_arrival(self.progress, makes_version=makes_version)
        quiet_period = timedelta(seconds=quiet_period_s)
        self.progress = after_arrival(
            self.progress, makes_version=makes_version, at=self.now, quiet_period=quiet_period
        )
        if version > self.progress.version:
            uid = str(len(self.arrivals))
            self.arrivals.append((self.now, quiet_period, uid, version))

    @rule(is_open=st.booleans())
    def open_or_close(self, *, is_open: bool) -> None:
        self.is_open = is_open

    @rule(
        status=st.sampled_from(StepStatus),
        count=st.integers(0, 12),
    )
    def tell_of_step(self, status: StepStatus, count: int) -> None:
        self.steps = [a_step(status, *(str(number) for number in range(count)))]

    @rule(seconds=st.sampled_from([0.5, 4, 25, 250, 8000]))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def pending(self) -> list[tuple[datetime, timedelta, str, int]]:
        return [each for each in self.arrivals if each[3] > self.progress.version]

    @invariant()
    def announce(self) -> None:
        pending = self.pending()
        listed = listing(self.steps)
        has_all = listed is not None and has_all_listed(
            listed,
            {uid for _, _, uid, _ in self.arrivals},
            {uid for _, _, uid, _ in pending},
        )
        evidence = Evidence(self.is_open, has_all)
        reason = completed_by(self.progress, evidence, self.now, LIMITS)

        is_quiet = all(came + quiet <= self.now for came, quiet, _, _ in pending)
        if not pending:
            assert reason is None
        elif reason is CompletionReason.QUIET:
            newest = max(came + quiet for came, quiet, _, _ in pending)
            assert is_quiet
            assert not self.is_open or newest + LIMITS.association_timeout <= self.now
        elif reason is CompletionReason.DEADLINE:
            assert min(came for came, *_ in pending) + LIMITS.deadline <= self.now
        elif reason is CompletionReason.MPPS:
            assert [step.status for step in self.steps] == [StepStatus.COMPLETED]
            assert set(self.steps[0].sop_instance_uids) <= {uid for _, _, uid, _ in self.arrivals}
        else:
            assert self.is_open or not is_quiet
            assert min(came for came, *_ in pending) + LIMITS.deadline > self.now
        if reason is not None:
            version = self.progress.version + 1
            assert {number for *_, number in pending} == {version}
            self.announced.append((version, reason))
            self.progress = Progress(version)

    @invariant()
    def every_version_is_announced_once(self) -> None:
        versions = [version for version, _ in self.announced]
        assert versions == list(range(1, self.progress.version + 1))


TestStudy = Study.TestCase
TestStudy.settings = settings(max_examples=30, stateful_step_count=30)


@given(st.lists(st.integers(0, 9), unique=True), st.sets(st.integers(0, 9)))
def test_nothing_is_complete_while_a_listed_instance_is_missing(
    listed: list[int], arrived: set[int]
) -> None:
    steps = listing([a_step(StepStatus.COMPLETED, *map(str, listed))])

    if steps is not None:
        missing = set(listed) - arrived
        complete = has_all_listed(steps, {str(number) for number in arrived}, set())
        assert complete == (not missing)
