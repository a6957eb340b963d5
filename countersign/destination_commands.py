"""``countersign destinations``: the PACS that results go to."""

# ruff: noqa: PLC0415 - --help must answer at once

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from countersign.installation import DataOption, open_database, use
from countersign.why import said

if TYPE_CHECKING:
    from dicom_sender.caller import Caller
    from message_contracts.destination import PacsDestination

app = typer.Typer(help="The PACS that results go to.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="As COUNTERSIGN_PACS_DESTINATIONS has it.")
]


@app.command("list")
def list_destinations(data: DataOption = None) -> None:
    """Show each destination: where it is, what waits for it, how it went last."""
    from admin_api import destinations
    from service_runtime.settings import DestinationSettings, load

    with open_database(data) as database:
        found = destinations.list_all(database, load(DestinationSettings).pacs_destinations)
    for each in found:
        typer.echo(f"{each.name}  {each.ae_title}@{each.host}:{each.port}  from {each.release} on")
        if each.paused is not None:
            typer.echo(
                f"  paused since {each.paused.paused_at:%Y-%m-%d %H:%M:%SZ} by "
                f"{each.paused.paused_by}: {each.paused.why} "
                f"(`countersign destinations resume {each.name}`)"
            )
        if each.window is not None:
            typer.echo(f"  sent to between {each.window}")
        if each.succeeded_at is not None:
            typer.echo(f"  last success {each.succeeded_at:%Y-%m-%d %H:%M:%SZ}")
        if each.failed_at is not None:
            typer.echo(f"  last failure {each.failed_at:%Y-%m-%d %H:%M:%SZ}: {each.failure}")
        if each.waiting_since is not None and each.next_try_at is not None:
            typer.echo(
                f"  {each.waiting} waiting since {each.waiting_since:%Y-%m-%d %H:%M:%SZ}, "
                f"next try {each.next_try_at:%Y-%m-%d %H:%M:%SZ}"
                + (f": {each.waiting_for}" if each.waiting_for else "")
            )
        else:
            typer.echo("  nothing waits")
        if each.dead_letters:
            typer.echo(f"  {each.dead_letters} given up: see `countersign dead-letters list`")
    if not found:
        typer.echo("no destinations: COUNTERSIGN_PACS_DESTINATIONS lists none")


@app.command()
def waiting(name: NameArgument, data: DataOption = None) -> None:
    """Show what waits for a destination, case by case, and what the last try found."""
    from admin_api.waiting import MOST_SHOWN, of_destination

    with open_database(data) as database, database.reading() as connection:
        _named(name)
        found = of_destination(connection, name)
    for each in found:
        typer.echo(
            f"{each.case_id} v{each.case_version}  {each.asks_for}  "
            f"since {each.since:%Y-%m-%d %H:%M:%SZ}, tried {each.attempts} times, "
            f"next {each.next_try_at:%Y-%m-%d %H:%M:%SZ}"
            + (f": {each.last_error}" if each.last_error else "")
        )
    if not found:
        typer.echo("nothing waits")
    if len(found) == MOST_SHOWN:
        typer.echo(f"and perhaps more: these are the first {MOST_SHOWN}")


@app.command()
def pause(
    name: NameArgument,
    why: Annotated[str, typer.Option(help="Kept with the pause.", callback=said)],
    data: DataOption = None,
) -> None:
    """Have nothing sent to a destination; what comes for it waits, and loses no attempt."""
    from datetime import UTC, datetime

    from admin_api import destinations

    with open_database(data) as database:
        _named(name)
        who = f"{getpass.getuser()} (command line)"
        destinations.pause(database, name, who, why, datetime.now(UTC))
    typer.echo(f"{name} is paused")


@app.command()
def resume(name: NameArgument, data: DataOption = None) -> None:
    """Let a destination be sent to again; what waits is tried now."""
    from admin_api import destinations

    with open_database(data) as database:
        _named(name)
        destinations.resume(database, name)
    typer.echo(f"{name} goes on")


@app.command()
def probe(name: NameArgument, data: DataOption = None) -> None:
    """Show what a destination would take, by opening an association and sending nothing."""
    from dicom_sender.probe import probe as ask

    use(data)
    destination, caller = _caller(name)
    for each in ask(destination, caller):
        typer.echo(f"{each.sop_class}: {', '.join(each.transfer_syntaxes)}")


@app.command()
def echo(name: NameArgument, data: DataOption = None) -> None:
    """Ask a destination whether it is there (C-ECHO); ends with 1 where it is not."""
    from dicom_sender.probe import echo as ask

    use(data)
    destination, caller = _caller(name)
    status = ask(destination, caller)
    if status == 0:
        typer.echo(f"{name} answers")
        return
    if status is None:
        typer.echo(f"{name} accepts the association, and does not offer Verification")
    else:
        typer.echo(f"{name} answers with status 0x{status:04X}")
    raise typer.Exit(1)


def _named(name: str) -> "PacsDestination":
    from admin_api import destinations
    from service_runtime.settings import DestinationSettings, load

    return destinations.named(load(DestinationSettings).pacs_destinations, name)


def _caller(name: str) -> "tuple[PacsDestination, Caller]":
    from dicom_sender.caller import caller_of
    from dicom_sender.settings import SenderSettings
    from service_runtime.settings import load

    return _named(name), caller_of(load(SenderSettings))
