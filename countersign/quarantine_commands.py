"""``countersign quarantine``: what could not be understood, and a person's word about it."""

# ruff: noqa: PLC0415 - --help must answer at once

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from countersign.installation import DataOption, open_database
from countersign.why import said

if TYPE_CHECKING:
    from pathlib import Path

    from message_contracts.intake import QuarantineDecision

app = typer.Typer(help="What could not be understood.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]
WhyOption = Annotated[str, typer.Option(help="Kept with the decision.", callback=said)]


@app.command("list")
def list_quarantine(
    settled: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--settled", help="Show what was released or discarded, too.")
    ] = False,
    data: DataOption = None,
) -> None:
    """Show what is in quarantine, the oldest first."""
    from admin_api.quarantine import list_all

    with open_database(data) as database:
        found = list_all(database, settled=settled)
    for each in found:
        typer.echo(
            f"{each.id}  {each.received_at:%Y-%m-%d %H:%M:%SZ}  {each.calling_ae_title}  "
            f"{each.size_bytes} bytes  {each.outcome or 'in quarantine'}  {each.reason}"
        )
    if not found:
        typer.echo("nothing is in quarantine")


@app.command()
def release(quarantined_id: IdArgument, why: WhyOption, data: DataOption = None) -> None:
    """Have it received once more, by the same checks; what still fails them stays."""
    from message_contracts.intake import QuarantineDecision

    _decide(quarantined_id, QuarantineDecision.RELEASE, why, data)


@app.command()
def discard(quarantined_id: IdArgument, why: WhyOption, data: DataOption = None) -> None:
    """Have its bytes removed; that it was there, who discarded it and why stay known."""
    from message_contracts.intake import QuarantineDecision

    _decide(quarantined_id, QuarantineDecision.DISCARD, why, data)


def _decide(
    quarantined_id: str, decision: "QuarantineDecision", why: str, data: "Path | None"
) -> None:
    from datetime import UTC, datetime

    from admin_api.quarantine import decide

    who = f"{getpass.getuser()} (command line)"
    with open_database(data) as database:
        decide(database, quarantined_id, decision, (who, why), datetime.now(UTC))
    typer.echo(f"{quarantined_id}: {decision}; it is being carried out")
