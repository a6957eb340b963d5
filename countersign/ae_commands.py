"""``countersign ae``: who may send to this installation, and what holds for them."""

# ruff: noqa: PLC0415 - --help must answer at once

import getpass
from typing import Annotated

import typer

from countersign.installation import DataOption, open_database
from message_contracts.inference import Urgency

app = typer.Typer(help="Application entities that may send.", no_args_is_help=True)

TitleArgument = Annotated[str, typer.Argument(metavar="AE_TITLE", help="The calling AE title.")]


@app.command()
def add(  # noqa: PLR0913, PLR0917 - each is a flag
    ae_title: TitleArgument,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR", help="It may call from this address or network only; repeatable."
        ),
    ] = None,
    quiet_period_s: Annotated[
        float | None,
        typer.Option(help="Seconds without a new instance that complete a study of its."),
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(help="Issuer of Patient ID where its instances name none.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="IANA zone of times that name no offset.")
    ] = None,
    urgency: Annotated[
        Urgency, typer.Option(help="The lane in which a model reads its studies.")
    ] = Urgency.ROUTINE,
    max_associations: Annotated[int | None, typer.Option(help="At one time.")] = None,
    commitment: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--commitment", help="Commit to store what it asks us to.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Where it hears of commitments; with --port.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Its port there.")] = None,
    tls: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--tls", help="It hears of them by DICOM TLS.")
    ] = False,
    data: DataOption = None,
) -> None:
    """List an AE title, or change what holds for it: from its next association on.

    What is not given is as the installation has it. Once anybody is listed, nobody else may send.
    """
    from datetime import UTC, datetime

    from admin_api import application_entities
    from imaging_store.retention import Retention
    from service_runtime.settings import RetentionSettings, load

    entry = application_entities.checked(
        networks=tuple(network or ()),
        quiet_period_s=quiet_period_s,
        default_issuer_of_patient_id=issuer,
        time_zone=time_zone,
        urgency=urgency,
        max_associations=max_associations,
        commitment=commitment,
        host=host,
        port=port,
        tls=tls,
    )
    with open_database(data) as database:
        retention = Retention.of(load(RetentionSettings))
        application_entities.require_a_commitment_period(entry, retention)
        who = f"{getpass.getuser()} (command line)"
        listed = application_entities.put(database, ae_title, entry, who, datetime.now(UTC))
    typer.echo(f"{listed.ae_title} may send from {' '.join(listed.networks) or 'anywhere'}")


@app.command("list")
def list_all(data: DataOption = None) -> None:
    """Show who may send, and what holds for them beside the installation's settings."""
    from admin_api import application_entities

    with open_database(data) as database:
        found = application_entities.list_all(database)
    for each in found:
        own = {
            "quiet period": each.quiet_period_s and f"{each.quiet_period_s:g} s",
            "issuer": each.default_issuer_of_patient_id,
            "zone": each.time_zone,
            "associations": each.max_associations,
            "urgency": each.urgency,
            "commitment": each.commitment and "yes",
            "at": each.host and f"{each.host}:{each.port}{' by TLS' if each.tls else ''}",
        }
        said = "  ".join(f"{name} {value}" for name, value in own.items() if value)
        typer.echo(f"{each.ae_title}  from {' '.join(each.networks) or 'anywhere'}  {said}")
    if not found:
        typer.echo("nobody is listed: anyone may send from loopback, and nobody else")


@app.command()
def remove(ae_title: TitleArgument, data: DataOption = None) -> None:
    """Strike an AE title off the list; associations that it has open go on."""
    from admin_api import application_entities

    with open_database(data) as database:
        application_entities.remove(database, ae_title)
        is_empty = not application_entities.list_all(database)
    typer.echo(f"{ae_title} may no longer send")
    if is_empty:
        typer.echo("nobody is listed any more: anyone may send from loopback, and nobody else")
