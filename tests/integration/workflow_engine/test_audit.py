from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update

from imaging_store.schema.workflow import (
    cases,
    history,
    history_head,
    inference_result,
    intervention,
    signature,
)
from tests.workflow_journey import NOON, Ward
from workflow_engine.audit import VerificationResult, verify
from workflow_engine.commands import Words, send_back
from workflow_engine.history import row_digest
from workflow_engine.reasons import ReturnReason

UID = "1.2.826.0.1.1"


@pytest.fixture
def signed(ward: Ward) -> Ward:
    ward.analyzed(UID)
    ward.verified(UID)
    words = Words(ReturnReason.OTHER, "Ünsure.")
    send_back(ward.desk, ward.request(UID, "pharmacist"), words)
    ward.signed(UID)
    return ward


def verified(ward: Ward) -> VerificationResult:
    with ward.database.reading() as connection:
        return verify(connection)


def tamper(ward: Ward, change: Callable[[Connection], None]) -> tuple[str, ...]:
    """Change rows as somebody with the database's password could; return what is found."""
    with ward.database.transaction() as transaction:
        connection = transaction.connection
        if ward.database.dialect == "sqlite":
            connection.execute(text("DROP TRIGGER history_refuses_update"))
            connection.execute(text("DROP TRIGGER history_refuses_delete"))
        else:
            connection.execute(text("ALTER TABLE history DISABLE TRIGGER ALL"))
        change(connection)
    return verified(ward).faults


def test_an_honest_history_is_intact(signed: Ward) -> None:
    result = verified(signed)

    assert result.intact, result.faults
    assert result.signatures == 4
    assert result.rows > 8


def test_an_empty_history_is_intact(ward: Ward) -> None:
    assert verified(ward) == VerificationResult(rows=0, signatures=0, faults=())


def test_a_changed_row_is_found(signed: Ward) -> None:
    faults = tamper(
        signed,
        lambda connection: connection.execute(
            update(history).where(history.c.sequence == 3).values(actor="somebody")
        ),
    )

    assert faults == ("history row 3: was changed",)


def test_a_signing_row_without_its_digests_is_found(signed: Ward) -> None:
    def change(connection: Connection) -> None:
        uid = connection.execute(
            select(signature.c.id).where(signature.c.stage == "admin")
        ).scalar()
        connection.execute(
            update(history)
            .where(history.c.trigger == "approved")
            .values(details={"signature_id": str(uid)})
        )

    row, signed_row = tamper(signed, change)

    assert row.endswith("was changed")
    assert signed_row.startswith("signature ")


def test_a_row_changed_together_with_its_digest_is_found(signed: Ward) -> None:
    def change(connection: Connection) -> None:
        row = connection.execute(select(history).where(history.c.sequence == 3)).one()
        forged = {**row._mapping, "actor": "somebody"}
        connection.execute(
            update(history)
            .where(history.c.sequence == 3)
            .values(actor="somebody", sha256=row_digest(forged))
        )

    assert tamper(signed, change) == ("history row 4: does not follow the row before it",)


def test_a_removed_row_is_found(signed: Ward) -> None:
    faults = tamper(
        signed,
        lambda connection: connection.execute(delete(history).where(history.c.sequence == 3)),
    )

    assert faults == ("history: rows 3 to 3 are missing",)


def test_a_tail_that_was_cut_off_is_found(signed: Ward) -> None:
    last = verified(signed).rows

    faults = tamper(
        signed,
        lambda connection: connection.execute(delete(history).where(history.c.sequence == last)),
    )

    assert f"history: rows {last} to {last} were cut off" in faults


def test_an_inserted_row_is_found(signed: Ward) -> None:
    def change(connection: Connection) -> None:
        last = connection.execute(
            select(history).order_by(history.c.sequence.desc()).limit(1)
        ).one()
        forged = {
            **last._mapping,
            "sequence": last.sequence + 1,
            "previous_sha256": last.sha256,
        }
        connection.execute(insert(history), {**forged, "sha256": row_digest(forged)})

    (fault,) = tamper(signed, change)

    assert "were added behind its back" in fault


def test_a_missing_head_is_found(signed: Ward) -> None:
    assert "history: its head is missing" in tamper(
        signed, lambda connection: connection.execute(delete(history_head))
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (update(signature).values(notes="Other words."), "was changed"),
        (update(signature).values(printed_name="Somebody"), "was changed"),
        (update(signature).values(meaning="Nothing"), "its meaning was changed"),
        (update(signature).values(voided_at=None), "put into force"),
        (update(signature).values(voided_at=NOON), "was voided"),
        (delete(signature).where(signature.c.stage == "admin"), "was removed"),
        (update(inference_result).values(completed=None), "the findings that were signed"),
        (update(intervention).values(notes="Other words."), "intervention"),
        (delete(intervention), "was removed"),
        (update(cases).values(status="REJECTED"), "is not where the history says"),
        (update(cases).values(on_hold=True), "was put on hold"),
        (update(cases).values(report_version=None), "another report is in force"),
        (update(signature).values(stage="nurse"), "was changed"),
        (update(intervention).values(act="mood"), "was changed"),
        (update(inference_result).values(completed={}), "the findings that were signed"),
    ],
)
def test_what_was_changed_beside_the_history_is_found(signed: Ward, change, fault: str) -> None:
    with signed.database.transaction() as transaction:
        transaction.connection.execute(change)

    faults = verified(signed).faults

    assert faults
    assert any(fault in each for each in faults)


def test_a_signature_that_nobody_gave_is_found(signed: Ward) -> None:
    with signed.database.transaction() as transaction:
        row = transaction.connection.execute(select(signature).limit(1)).one()
        forged = {**row._mapping, "id": row.case_id}
        transaction.connection.execute(insert(signature), forged)

    (fault,) = verified(signed).faults
    assert fault.endswith("the history does not know it")


def test_no_words_of_a_person_stand_in_the_history_or_in_faults(signed: Ward) -> None:
    with signed.database.transaction() as transaction:
        transaction.connection.execute(update(intervention).values(notes="Changed"))
        told = transaction.connection.execute(select(history.c.details)).scalars().all()

    assert "nsure" not in f"{told} {verified(signed).faults}"
    assert "No interaction" not in str(told)
