"""Which waiting studies have all that their procedure steps list."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, select

from dicom_listener.completion import Listing, has_all_listed, listing
from dicom_listener.procedure_step import ProcedureStep, StepStatus
from imaging_store.schema.ingest import instance, performed_procedure_step, step_of_study, study
from service_runtime.database import Database

_CHUNK = 500
_AT_ONCE = 500
"""As many studies are looked at in one go; the others are a moment later."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

_Ended = tuple[tuple[str, str], ...]
"""SOP Instance UID and status of every step of a study, all of them ended."""


@dataclass(frozen=True, slots=True)
class _Missing:
    """Why a study did not have all when it was looked at last."""

    steps: _Ended
    awaited: str | None
    """An instance that had not arrived; none where one has arrived that no step lists."""


class ListedInstances:
    """Looks for studies that are complete by what their steps list.

    Of a study that is not it remembers one instance that is missing: until that has arrived, or
    its steps change, nothing else need be read. What it remembers spares work and decides nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._missing: dict[str, _Missing] = {}

    def complete(self) -> dict[str, int]:
        """Return the studies, of those that wait, that have all that their steps list.

        With each the last version announced: what is told is of the next one alone.
        """
        with self._database.reading() as connection:
            ended = _ended_steps(connection)
            arrived = _arrived(
                connection,
                [
                    missing.awaited
                    for uid, missing in self._missing.items()
                    if missing.awaited and uid in ended
                ],
            )
            remembered, self._missing = self._missing, {}
            found = {}
            looked = 0
            for uid, steps in ended.items():
                missing = remembered.get(uid)
                if missing is None or missing.steps != steps or missing.awaited in arrived:
                    if looked == _AT_ONCE:
                        continue
                    looked += 1
                    version, missing = _look(connection, uid, steps)
                    if missing is None:
                        found[uid] = version
                        continue
                self._missing[uid] = missing
        return found


def _look(
    connection: Connection, study_instance_uid: str, steps: _Ended
) -> tuple[int, _Missing | None]:
    """Return the last version announced, and what is missing to the next."""
    version = connection.execute(_VERSION, {"uid": study_instance_uid}).scalar_one()
    listed = _listing(connection, [uid for uid, _ in steps])
    if listed is None:
        return version, _Missing(steps, None)
    arrived = _arrived(connection, listed.awaited)
    waiting = connection.execute(_WAITING, {"uid": study_instance_uid, "version": version})
    if has_all_listed(listed, arrived, set(waiting.scalars())):
        return version, None
    # Instances are sent in the order in which they are listed, more often than not.
    awaited = next((uid for uid in reversed(listed.awaited) if uid not in arrived), None)
    return version, _Missing(steps, awaited)


def _ended_steps(connection: Connection) -> dict[str, _Ended]:
    """Return the steps of every waiting study of which none is IN PROGRESS."""
    of_study: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for study_instance_uid, step_uid, status in connection.execute(_STEPS):
        of_study[study_instance_uid].append((step_uid, status))
    return {
        uid: tuple(steps)
        for uid, steps in of_study.items()
        if all(status != StepStatus.IN_PROGRESS for _, status in steps)
    }


_STEPS = (
    select(
        step_of_study.c.study_instance_uid,
        performed_procedure_step.c.sop_instance_uid,
        performed_procedure_step.c.status,
    )
    .join(
        performed_procedure_step,
        performed_procedure_step.c.sop_instance_uid == step_of_study.c.step_sop_instance_uid,
    )
    .where(
        step_of_study.c.study_instance_uid.in_(
            # As a range, for which SQLite takes the index.
            select(study.c.study_instance_uid).where(study.c.quiet_until > _LONG_AGO)
        )
    )
    .order_by(step_of_study.c.study_instance_uid, performed_procedure_step.c.sop_instance_uid)
)


def _listing(connection: Connection, step_uids: Sequence[str]) -> Listing | None:
    columns = performed_procedure_step.c
    rows = connection.execute(
        select(columns.status, columns.sop_instance_uids).where(
            columns.sop_instance_uid.in_(step_uids)
        )
    )
    return listing(
        ProcedureStep(StepStatus(row.status), (), tuple(row.sop_instance_uids)) for row in rows
    )


def _arrived(connection: Connection, sop_instance_uids: Iterable[str]) -> set[str]:
    column = instance.c.sop_instance_uid
    uids = list(sop_instance_uids)
    arrived: set[str] = set()
    for start in range(0, len(uids), _CHUNK):
        arrived.update(
            connection.execute(
                select(column).where(column.in_(uids[start : start + _CHUNK]))
            ).scalars()
        )
    return arrived


_VERSION = select(study.c.version).where(study.c.study_instance_uid == bindparam("uid"))
_WAITING = select(instance.c.sop_instance_uid).where(
    instance.c.study_instance_uid == bindparam("uid"),
    instance.c.makes_version,
    instance.c.study_version > bindparam("version"),
)
"""Images of the version not yet announced."""
