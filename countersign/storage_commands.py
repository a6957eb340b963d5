"""``countersign storage``: how full the store is, what may be let go of, and letting it go now."""

# ruff: noqa: PLC0415 - --help must answer at once

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from countersign.installation import DataOption, open_database

if TYPE_CHECKING:
    from pathlib import Path

    from dicom_listener.purging import Purge
    from imaging_store.holdings import Amount

app = typer.Typer(help="What is kept, and letting go of it.", no_args_is_help=True)

_SHOWN = 100


@contextmanager
def _purge(data: "Path | None") -> Iterator["Purge"]:
    from dicom_listener.purging import Purge
    from imaging_store.instances import open_instance_store
    from imaging_store.retention import Retention
    from service_runtime.settings import RetentionSettings, load

    with open_database(data) as database:
        settings = load(RetentionSettings)
        store = open_instance_store(settings.store)
        yield Purge(database, store, Retention.of(settings), lambda: datetime.now(UTC))


@app.command()
def status(data: DataOption = None) -> None:
    """Show what is kept, how much room is left, and what may be purged by when."""
    from imaging_store.holdings import holdings
    from imaging_store.retention import room_of

    with _purge(data) as purge:
        retention, room = purge.retention, room_of(purge.store.root)
        with purge.database.reading() as connection:
            found = holdings(connection, retention, purge.now())
    days = f"{retention.days:g} days after the case ended" if retention.days else "for ever"
    lines = {
        "free": f"{_size(room.free_bytes)} of {_size(room.total_bytes)}",
        "refused below": _size(retention.reserve_bytes),
        "purged early below": _size(retention.watermark_bytes),
        "kept": f"{days}",
        "instances": _amount(found.kept),
        "oldest received": _moment(found.oldest_received_at),
        "committed to": f"{found.committed_instances} instances",
        "purgeable now": _amount(found.purgeable),
        "next purgeable": _moment(found.next_due_at),
        "purged so far": _amount(found.purged),
    }
    for name, value in lines.items():
        typer.echo(f"{name:<20}{value}")


@app.command()
def purge(
    dry_run: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--dry-run", help="Show what would go, and let nothing go.")
    ] = False,
    data: DataOption = None,
) -> None:
    """Let go now of what has been kept long enough, and of more where room is short.

    The listener does the same by itself.
    """
    with _purge(data) as purge:
        if dry_run:
            _show_purgeable(purge)
            return
        gone = size_bytes = 0
        for some in (purge.some, purge.some_early):
            while (amount := some()).instances:
                gone += amount.instances
                size_bytes += amount.size_bytes
    typer.echo(f"{gone} instances purged, {_size(size_bytes)}")


@app.command()
def commitments(data: DataOption = None) -> None:
    """Show whom we owe the result of a storage commitment, and to whom it could not be told."""
    from sqlalchemy import select

    from imaging_store.schema.ingest import commitment

    with open_database(data) as database, database.reading() as connection:
        rows = connection.execute(
            select(commitment)
            .where(commitment.c.told_at.is_(None))
            .order_by(commitment.c.requested_at)
            .limit(_SHOWN)
        ).all()
    for row in rows:
        next_time = f"next {_moment(row.due_at)}" if row.due_at else "given up"
        typer.echo(
            f"{_moment(row.requested_at)}  {row.calling_ae_title:<16}  {row.transaction_uid}  "
            f"{row.attempt} attempts, {next_time}"
        )
    if not rows:
        typer.echo("every result has been told")


def _show_purgeable(purge: "Purge") -> None:
    from imaging_store.holdings import purgeable
    from imaging_store.retention import due, early, ended_studies, room_of

    moment = due(purge.retention, purge.now())
    if moment is None:
        typer.echo("instances are kept for ever")
        return
    with purge.database.reading() as connection:
        total = purgeable(connection, moment)
        for ended in ended_studies(connection, moment, _SHOWN):
            typer.echo(f"{ended.study_instance_uid}  ended {_moment(ended.ended_at)}")
        typer.echo(f"{_amount(total)} would be purged")
        short = early(purge.retention, room_of(purge.store.root).free_bytes, purge.now())
        if short is not None:
            more = _amount(purgeable(connection, short))
            typer.echo(f"room is short: of {more} the oldest would go before their time")


def _amount(amount: "Amount") -> str:
    return f"{amount.instances} instances, {_size(amount.size_bytes)}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB"


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}" if at else "-"
