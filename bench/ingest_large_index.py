"""Receiving into an index of a million instances, beside an empty one; both in PostgreSQL."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Integer,
    create_engine,
    delete,
    func,
    select,
    text,
)

from bench.ingest_load import send
from bench.ingest_receivers import countersign
from imaging_store.migrations import upgrade
from imaging_store.schema.ingest import instance, study
from service_runtime.database import metadata
from tests.peers.postgresql import PostgreSQL

_INSTANCES_PER_STUDY = 200
# 32 digits that look drawn by lot, as UIDs in use do: neighbors do not share a page.
_UID = "'2.25.' || translate(md5({what} || {number}), 'abcdef', '123456')"


def seed(url: str, instances: int) -> None:
    """Fill an index with so many instances of other studies, all complete."""
    of_study = f"(n / {_INSTANCES_PER_STUDY})::text"
    uids = {
        "study_instance_uid": _UID.format(what="'study'", number=of_study),
        "series_instance_uid": _UID.format(what="'series'", number=of_study),
        "sop_instance_uid": _UID.format(what="'instance'", number="n::text"),
        "digest": "md5(n::text)",
        "version": "1",
    }
    engine = create_engine(url)
    with engine.begin() as connection:
        for table, step in ((study, _INSTANCES_PER_STUDY), (instance, 1)):
            columns = [column for column in table.c if not column.nullable]
            names = ", ".join(f'"{column.name}"' for column in columns)
            values = ", ".join(uids.get(column.name, _some(column)) for column in columns)
            rows = f"generate_series(0, {instances - 1}, {step}) n"
            connection.execute(
                text(f'INSERT INTO "{table.name}" ({names}) SELECT {values} FROM {rows}')  # noqa: S608 - no one's input
            )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
    engine.dispose()


def _some(column: Column[object]) -> str:
    if isinstance(column.type, JSON):
        return "'[]'"
    if isinstance(column.type, Boolean):
        return "true"
    if isinstance(column.type, Integer):
        return "1"
    if isinstance(getattr(column.type, "impl", column.type), DateTime):
        return "now()"
    return "'x'"


def measure(
    folders: Sequence[Path], count: int, rounds: int, associations: int, seeded: int, work: Path
) -> dict[str, object]:
    """Receive into both in turns; return rates and the median of the paired ratios."""
    per_s: dict[str, list[float]] = {"empty": [], "large": []}
    with PostgreSQL(durable=True) as server:
        urls = {name: server.create_database() for name in per_s}
        for url in urls.values():
            upgrade(url)
        seed(urls["large"], seeded)
        for round_ in range(rounds + 1):
            for name in sorted(urls, reverse=bool(round_ % 2)):
                place = work / f"index-{name}-{round_}"
                place.mkdir()
                with countersign(place, database_url=urls[name]) as receiver:
                    taken_s = send(folders, receiver, associations)
                forget_received(urls[name], seeded if name == "large" else 0)
                if round_:
                    per_s[name].append(count / taken_s)
    return {
        "instances_in_the_large_index": seeded,
        "associations": associations,
        "empty_instances_per_s": round(statistics.median(per_s["empty"])),
        "large_instances_per_s": round(statistics.median(per_s["large"])),
        "ratio": round(
            statistics.median(
                large / empty for large, empty in zip(per_s["large"], per_s["empty"], strict=True)
            ),
            3,
        ),
        "bar": 0.85,
    }


def forget_received(url: str, kept: int) -> None:
    """Take away what a round has added, so that the next sends something new."""
    engine = create_engine(url)
    added = select(study.c.study_instance_uid).where(study.c.patient_id == "BENCH")
    with engine.begin() as connection:
        for name in ("delivery", "message", "open_association"):
            connection.execute(delete(metadata.tables[name]))
        for table in (instance, study):
            connection.execute(delete(table).where(table.c.study_instance_uid.in_(added)))
        left = connection.execute(select(func.count()).select_from(instance)).scalar_one()
    engine.dispose()
    assert left == kept, f"{left} instances are left"
