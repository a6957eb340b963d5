"""``countersign dead-letters``: what was given up, and what a person decides about it."""

# ruff: noqa: PLC0415 - --help must answer at once

import getpass
from typing import Annotated

import typer

from countersign.installation import DataOption, open_database
from countersign.why import said

app = typer.Typer(help="Messages that were given up.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]
_SHOWN = 1000


@app.command("list")
def list_open(data: DataOption = None) -> None:
    """Show what nobody has decided about, the oldest first."""
    from service_runtime.messaging import dead_letters

    with open_database(data) as database:
        found = dead_letters.list_open(database, limit=_SHOWN)
    for letter in found:
        typer.echo(
            f"{letter.id}  {letter.at:%Y-%m-%d %H:%M:%SZ}  {letter.queue}  {letter.routing_key}  "
            f"{letter.attempts} attempts  {letter.reason}"
        )
    if not found:
        typer.echo("no dead letters")


@app.command()
def replay(
    dead_letter_id: IdArgument,
    why: Annotated[
        str, typer.Option(help="Kept with the dead letter.", callback=said)
    ] = "replayed by hand",
    data: DataOption = None,
) -> None:
    """Have a message delivered once more, with all its attempts."""
    from service_runtime.messaging import dead_letters

    with open_database(data) as database, database.transaction() as transaction:
        dead_letters.replay(transaction, dead_letter_id, who=_who(), why=why)
    typer.echo(f"{dead_letter_id} replayed")


@app.command()
def discard(
    dead_letter_id: IdArgument,
    why: Annotated[str, typer.Option(help="Kept with the dead letter.", callback=said)],
    data: DataOption = None,
) -> None:
    """Give a message up for good; it stays in the table, with who and why."""
    from service_runtime.messaging import dead_letters

    with open_database(data) as database, database.transaction() as transaction:
        dead_letters.discard(transaction, dead_letter_id, who=_who(), why=why)
    typer.echo(f"{dead_letter_id} discarded")


def _who() -> str:
    return f"{getpass.getuser()} (command line)"
