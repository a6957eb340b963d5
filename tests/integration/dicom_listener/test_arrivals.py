"""Groups of arrivals that have much in common: associations, studies, instances."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, delete, select, update

from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome, enter
from dicom_listener.open_associations import OpenAssociation, let_go, open_for
from imaging_store.schema import ingest
from imaging_store.schema.ingest import (
    conflict,
    duplicate_instance,
    early_conflict,
    instance,
    open_association,
    study,
)
from imaging_store.schema.results import model
from message_contracts.catalogue import decode
from message_contracts.envelope import M
from message_contracts.ingest import StudyConflicted, StudyOpened
from message_contracts.intake import InstanceDuplicated
from service_runtime.database import Database, metadata
from service_runtime.messaging.tables import delivery, message
from tests.integration.dicom_listener.indexed import NOON, an_arrival

PATIENT: dict[str, Any] = {"patient_id": "P1", "patient_name": "Doe^Jane", "patient_birth_date": ""}
OTHERS: tuple[dict[str, Any], ...] = (
    {"patient_birth_date": "19700101"},
    {"patient_birth_date": "19800202"},
    {"patient_id": "P2"},
    {"patient_id": ""},
)
OUR_MODEL = {
    "name": "chest",
    "version": "1",
    "device_uid": "2.25.99",
    "weights_sha256": "0" * 64,
    "description": {},
    "registered_at": NOON,
}


def arrivals_of(
    *numbers: int, study_number: int = 1, association: OpenAssociation | None = None
) -> list[Arrival]:
    """Return images of a study by their numbers, each a second after the one before."""
    return [Sent(study_number, number).arrival(association) for number in numbers]


@dataclass(frozen=True)
class Sent:
    """What is drawn of an arrival."""

    study_number: int
    number: int
    content: int = 0
    association: int | None = None
    patient: int | None = None
    is_image: bool = True
    is_ours: bool = False
    rejects: tuple[int, ...] = ()

    def arrival(self, association: OpenAssociation | None, second: int = 0) -> Arrival:
        """Return it as an arrival, so many seconds after noon."""
        uid, digest = f"1.2.{self.number}", f"{self.content:032}"
        template = template_arrival()
        shared = template.header.shared._replace(
            **PATIENT | ({} if self.patient is None else OTHERS[self.patient]),
            study_instance_uid=f"1.1.{self.study_number}",
            is_image=self.is_image,
        )
        header = template.header._replace(
            shared=shared,
            sop_instance_uid=uid,
            contributing_device_uids=frozenset({"2.25.99"} if self.is_ours else ()),
        )
        return template._replace(
            header=header,
            kept=template.kept._replace(key=f"instances/{uid}-{digest}.dcm", digest=digest),
            at=NOON + timedelta(seconds=second or self.number),
            association=association,
            rejected_studies=tuple(f"1.1.{each}" for each in self.rejects),
        )


def template_arrival() -> Arrival:
    """Return an arrival to make others of; to draw a data set each time takes long."""
    if not _TEMPLATE:
        _TEMPLATE.append(an_arrival())
    return _TEMPLATE[0]


_TEMPLATE: list[Arrival] = []


def enter_group(database: Database, arrivals: Sequence[Arrival]) -> list[Outcome]:
    with database.transaction() as transaction:
        return enter(transaction, arrivals)


def rows(database: Database, table: Table) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(select(table)))


def said(database: Database, kind: type[M]) -> list[M]:
    bodies = [decode(bytes(row.body)).body for row in rows(database, message)]
    return [body for body in bodies if isinstance(body, kind)]


def test_of_the_studies_that_an_association_sends_to_in_a_group_the_last_is_held_open(
    database: Database,
) -> None:
    one, other = open_for("ONE"), open_for("OTHER")
    group = [
        *arrivals_of(1, 2, association=one),
        *arrivals_of(3, study_number=3, association=other),
        *arrivals_of(4, 5, study_number=2, association=one),
    ]

    assert enter_group(database, group) == [Outcome.NEW] * 5

    held = {row.id: (row.study_instance_uid, row.since) for row in rows(database, open_association)}
    assert held == {
        one.id: ("1.1.2", NOON + timedelta(seconds=4)),
        other.id: ("1.1.3", NOON + timedelta(seconds=3)),
    }
    assert (one.study_instance_uid, other.study_instance_uid) == ("1.1.2", "1.1.3")


def test_an_association_that_comes_back_to_its_study_within_a_group_holds_that(
    database: Database,
) -> None:
    association = open_for("ONE")
    enter_group(database, arrivals_of(1, association=association))

    enter_group(
        database,
        [
            *arrivals_of(2, study_number=2, association=association),
            *arrivals_of(3, association=association),
        ],
    )

    [held] = rows(database, open_association)
    assert held.study_instance_uid == association.study_instance_uid == "1.1.1"


def test_copies_of_an_association_in_a_group_are_one_association(database: Database) -> None:
    association = open_for("ONE")

    enter_group(
        database,
        [
            *arrivals_of(1, association=replace(association)),
            *arrivals_of(2, association=replace(association)),
            *arrivals_of(3, study_number=2, association=replace(association)),
        ],
    )

    assert [row.study_instance_uid for row in rows(database, open_association)] == ["1.1.2"]


def test_an_association_that_ends_behind_its_arrivals_holds_nothing_open(
    database: Database,
) -> None:
    ended, other = open_for("ENDED"), open_for("OTHER")
    enter_group(database, arrivals_of(1, association=ended))

    with database.transaction() as transaction:
        enter(
            transaction,
            [
                *arrivals_of(2, study_number=2, association=ended),
                *arrivals_of(3, study_number=2, association=other),
            ],
        )
        let_go(transaction, [ended])

    assert [row.id for row in rows(database, open_association)] == [other.id]
    assert (ended.study_instance_uid, other.study_instance_uid) == ("", "1.1.2")


def test_what_a_group_did_not_keep_holds_nothing_open(database: Database) -> None:
    association = open_for("ONE")

    def enter_and_fail() -> None:
        with database.transaction() as transaction:
            enter(transaction, arrivals_of(1, 2, association=association))
            raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        enter_and_fail()

    assert association.study_instance_uid == ""
    assert rows(database, open_association) == []


def test_the_same_instance_twice_in_a_group_is_one(database: Database) -> None:
    group = arrivals_of(1, 2, 1)

    assert enter_group(database, group) == [Outcome.NEW, Outcome.NEW, Outcome.SAME_AGAIN]

    assert len(rows(database, instance)) == 2
    assert rows(database, duplicate_instance) == []
    assert len(said(database, StudyOpened)) == 1


def test_other_bytes_are_told_once_for_each_digest_of_a_group(database: Database) -> None:
    group = [Sent(1, 1, content).arrival(None) for content in (0, 1, 1, 2, 0, 1)]

    assert enter_group(database, group) == [
        Outcome.NEW,
        *[Outcome.OTHER_BYTES] * 3,
        Outcome.SAME_AGAIN,
        Outcome.OTHER_BYTES,
    ]

    digests = [f"{content:032}" for content in (1, 2)]
    assert [row.digest for row in rows(database, duplicate_instance)] == digests
    assert {body.digest for body in said(database, InstanceDuplicated)} == {*digests}


def test_what_was_let_go_of_is_purged_each_time_that_it_comes_in_a_group(
    database: Database,
) -> None:
    first, other = Sent(1, 1).arrival(None), Sent(1, 1, content=1).arrival(None)
    enter_group(database, [first, other])
    with database.transaction() as transaction:
        for table in (study, instance, duplicate_instance):
            transaction.connection.execute(update(table).values(purged_at=NOON))

    outcomes = enter_group(database, [first, other, other, first, *arrivals_of(2)])

    assert outcomes == [*[Outcome.PURGED] * 4, Outcome.NEW]
    # The purge looks at it again: something of it is kept.
    assert [row.purged_at for row in rows(database, study)] == [None]


def test_a_study_is_known_by_what_its_instances_add_in_a_group(database: Database) -> None:
    sent = [Sent(1, 1), Sent(1, 2, patient=0), Sent(1, 3, patient=1)]

    enter_group(database, [each.arrival(None) for each in sent])

    [row] = rows(database, study)
    assert (row.patient_id, row.patient_birth_date) == ("P1", "19700101")
    [found] = rows(database, conflict)
    assert (found.sop_instance_uid, found.differing) == ("1.2.3", ["PatientBirthDate"])


def test_of_another_patient_in_a_group_a_person_hears_once(database: Database) -> None:
    sent = [Sent(1, 1), Sent(1, 2, patient=2), Sent(1, 3), Sent(1, 4, patient=2)]

    enter_group(database, [each.arrival(None) for each in sent])

    assert len(rows(database, conflict)) == 1
    assert len(rows(database, ingest.conflicting_instance)) == 2
    assert len(said(database, StudyConflicted)) == 1


def test_a_group_behind_an_announced_version_belongs_to_the_next(database: Database) -> None:
    enter_group(database, arrivals_of(1))
    with database.transaction() as transaction:
        transaction.connection.execute(
            update(study).values(version=1, pending_since=None, quiet_until=None)
        )

    enter_group(
        database,
        [
            Sent(1, 2, is_image=False).arrival(None),
            *arrivals_of(3, 4),
            Sent(1, 5, is_image=False).arrival(None),
        ],
    )

    versions = {row.sop_instance_uid: row.study_version for row in rows(database, instance)}
    assert versions == {"1.2.1": 1, "1.2.2": 1, "1.2.3": 2, "1.2.4": 2, "1.2.5": 1}
    [row] = rows(database, study)
    assert row.pending_since == NOON + timedelta(seconds=3)
    assert row.quiet_until == NOON + timedelta(seconds=34)


def test_a_note_in_a_group_is_told_of_what_came_before_it_and_kept_for_the_rest(
    database: Database,
) -> None:
    note = Sent(1, 2, is_image=False, rejects=(1, 2, 3))

    enter_group(
        database,
        [
            *arrivals_of(1),
            *arrivals_of(3, study_number=2),
            note.arrival(None),
            *arrivals_of(4, study_number=3),
        ],
    )

    told = {body.study_instance_uid for body in said(database, StudyConflicted)}
    assert told == {"1.1.1", "1.1.2"}
    assert [row.study_instance_uid for row in rows(database, early_conflict)] == ["1.1.3"]


SENT = st.builds(
    Sent,
    study_number=st.integers(1, 3),
    number=st.integers(1, 5),
    content=st.sampled_from([0, 0, 0, 1, 2]),
    association=st.sampled_from([None, 0, 0, 1]),
    patient=st.none() | st.integers(0, len(OTHERS) - 1),
    is_image=st.booleans(),
    is_ours=st.sampled_from([False, False, False, True]),
    rejects=st.just(()) | st.lists(st.integers(1, 3), max_size=2, unique=True).map(tuple),
)


@dataclass(frozen=True)
class Story:
    """What was entered before, what has happened to it, and what comes then."""

    before: list[Sent]
    announced: set[int]
    purged: set[int]
    is_excluded: bool
    then: list[Sent]
    sizes: list[int]
    """Of the groups; at their end the rest is one."""
    ended: set[int]


STORIES = st.builds(
    Story,
    before=st.lists(SENT, max_size=6),
    announced=st.sets(st.integers(1, 3)),
    purged=st.sets(st.integers(1, 3)),
    is_excluded=st.booleans(),
    then=st.lists(SENT, min_size=2, max_size=12),
    sizes=st.lists(st.integers(1, 6), max_size=2),
    ended=st.sets(st.integers(0, 1)),
)


def groups_of(arrivals: Sequence[Arrival], sizes: Sequence[int]) -> Iterator[Sequence[Arrival]]:
    start = 0
    for size in (*sizes, len(arrivals)):
        if group := arrivals[start : start + size]:
            yield group
        start += size


def happens(database: Database, story: Story) -> None:
    """Have versions announced, bytes let go of, and patients left out by a person."""
    announced, purged = (
        [f"1.1.{number}" for number in numbers] for numbers in (story.announced, story.purged)
    )
    with database.transaction() as transaction:
        execute = transaction.connection.execute
        execute(
            update(study)
            .where(study.c.study_instance_uid.in_(announced))
            .values(version=1, pending_since=None, quiet_until=None)
        )
        for table in (study, instance, duplicate_instance):
            execute(
                update(table).where(table.c.study_instance_uid.in_(purged)).values(purged_at=NOON)
            )
        if story.is_excluded:
            execute(update(conflict).values(decision="exclude"))


def outcome_of(database: Database, story: Story, sizes: Sequence[int]) -> object:
    """Return what comes of a story: answers, rows, messages, and what associations know."""
    with database.transaction() as transaction:
        for table in reversed(metadata.sorted_tables):
            transaction.connection.execute(delete(table))
        transaction.connection.execute(model.insert(), OUR_MODEL)
    associations = [OpenAssociation(f"association {number}", "ONE", "1") for number in range(2)]
    arrivals = [
        each.arrival(
            None if each.association is None else associations[each.association],
            # Clocks of processes differ a little: not all come in the order of their times.
            second=second - second % 4 * 2 + 10,
        )
        for second, each in enumerate([*story.before, *story.then])
    ]
    for arrival in arrivals[: len(story.before)]:
        enter_group(database, [arrival])
    happens(database, story)
    outcomes = []
    groups = list(groups_of(arrivals[len(story.before) :], sizes))
    for group in groups:
        with database.transaction() as transaction:
            outcomes += enter(transaction, group)
            if group is groups[-1]:
                let_go(transaction, [associations[number] for number in sorted(story.ended)])
    tables = (*(each for each in vars(ingest).values() if isinstance(each, Table)), delivery)
    return (
        outcomes,
        [association.study_instance_uid for association in associations],
        {table.name: sorted(map(repr, shown(database, table))) for table in tables},
        sorted(map(repr, messages(database))),
    )


def shown(database: Database, table: Table) -> list[dict[str, Any]]:
    left_out = {"due_at"} if table is delivery else set()
    return [
        {name: value for name, value in row._mapping.items() if name not in left_out}
        for row in rows(database, table)
    ]


def messages(database: Database) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for row in rows(database, message):
        body = json.loads(row.body)
        yield row.id, row.routing_key, {k: body[k] for k in body if k != "traceparent"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=STORIES)
def test_a_group_comes_to_the_same_as_one_after_the_other(database: Database, story: Story) -> None:
    one_by_one = outcome_of(database, story, [1] * len(story.then))

    assert outcome_of(database, story, story.sizes) == one_by_one
