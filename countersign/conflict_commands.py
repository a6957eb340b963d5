"""``countersign conflicts``: what contradicts a study, and a person's word about it."""

# ruff: noqa: PLC0415 - --help must answer at once

from typing import Annotated
from uuid import UUID

import typer

from countersign.installation import DataOption, open_database
from countersign.why import said
from message_contracts.intake import ConflictDecision

app = typer.Typer(help="What contradicts a study.", no_args_is_help=True)

IdArgument = Annotated[UUID, typer.Argument(metavar="ID", help="As `list` shows it.")]


@app.command("list")
def list_open(data: DataOption = None) -> None:
    """Show what nobody has decided about, or is being carried out, the oldest first."""
    from admin_api.conflicts import open_conflicts, views

    with open_database(data) as database, database.reading() as connection:
        found = views(connection, open_conflicts())
    for each in found:
        typer.echo(
            f"{each.id}  {each.opened_at:%Y-%m-%d %H:%M:%SZ}  case {each.case_id}  {each.kind}  "
            f"{'holds' if each.holds else 'does not hold'}  {each.state}  "
            f"{each.instance_count} instances  {' '.join(each.differing)}"
        )
    if not found:
        typer.echo("no conflicts")


@app.command()
def show(conflict_id: IdArgument, data: DataOption = None) -> None:
    """Show what is known and what is claimed, side by side; the values are a patient's."""
    from admin_api.conflicts import conflict_of, views

    with open_database(data) as database, database.reading() as connection:
        found = views(connection, conflict_of(conflict_id))
    for each in found:
        for keyword in sorted(each.known.keys() | each.claimed.keys()):
            mark = "*" if keyword in each.differing else " "
            known, claimed = each.known.get(keyword, ""), each.claimed.get(keyword, "")
            typer.echo(f"{mark} {keyword}: {known!r} is known, {claimed!r} is claimed")
        others = sorted(set(each.differing) - each.known.keys() - each.claimed.keys())
        typer.echo(f"differing besides: {' '.join(others) or 'nothing'}")
    if not found:
        raise typer.BadParameter("there is no such conflict", param_hint="ID")


@app.command()
def decide(
    conflict_id: IdArgument,
    decision: Annotated[
        ConflictDecision,
        typer.Argument(
            help="keep what is known, replace it with what is claimed, or exclude what claims it."
        ),
    ],
    why: Annotated[str, typer.Option(help="Kept with the case.", callback=said)],
    reason: Annotated[
        str, typer.Option(help="A code of /api/v1/reason-codes, conflict_decision.")
    ] = "other",
    data: DataOption = None,
) -> None:
    """Say which is right; the listener carries it out, and the case goes on by itself then."""
    from datetime import UTC, datetime

    from admin_api.conflicts import conflict_of, views
    from countersign.shell_user import shell_user
    from workflow_engine.commands import DecisionReason, Desk, Request, Words, decide_conflict

    try:
        words = Words(DecisionReason(reason), why)
    except ValueError:
        known = ", ".join(DecisionReason)
        raise typer.BadParameter(f"one of {known}", param_hint="--reason") from None
    with open_database(data) as database:
        with database.reading() as connection:
            found = views(connection, conflict_of(conflict_id))
        case_id = found[0].case_id if found else None
        if case_id is None:
            raise typer.BadParameter("there is no such conflict", param_hint="ID")
        request = Request(case_id, shell_user(), datetime.now(UTC))
        decide_conflict(Desk(database), request, conflict_id, decision, words)
    typer.echo(f"{conflict_id}: {decision}; it is being carried out")
