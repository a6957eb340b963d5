"""The command line: ``countersign --help``."""

# What a command needs is imported when it is called: --help must answer at once, and importing
# TensorFlow or WeasyPrint takes seconds.
# ruff: noqa: PLC0415

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from countersign import (
    ae_commands,
    conflict_commands,
    dead_letter_commands,
    destination_commands,
    model_commands,
    quarantine_commands,
    storage_commands,
    study_commands,
    user_commands,
)
from countersign.installation import DataOption, PlainErrors, open_database, use

app = typer.Typer(
    cls=PlainErrors,
    help="Reads every imaging study; nothing reaches the chart until it has been countersigned.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(user_commands.app, name="users")
app.add_typer(ae_commands.app, name="ae")
app.add_typer(model_commands.app, name="models")
app.add_typer(dead_letter_commands.app, name="dead-letters")
app.add_typer(destination_commands.app, name="destinations")
app.add_typer(storage_commands.app, name="storage")
app.add_typer(study_commands.app, name="studies")
app.add_typer(conflict_commands.app, name="conflicts")
app.add_typer(quarantine_commands.app, name="quarantine")
audit = typer.Typer(help="What has been done, and by whom.", no_args_is_help=True)
app.add_typer(audit, name="audit")
db = typer.Typer(help="The database.", no_args_is_help=True)
app.add_typer(db, name="db")


def _show_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        typer.echo(f"countersign {installed_version('countersign')}")
        raise typer.Exit


@app.callback()
def countersign(
    version: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Do nothing by itself."""


@app.command()
def up(  # noqa: PLR0913, PLR0917 - each is a flag
    data: DataOption = None,
    dicom_host: Annotated[
        str | None, typer.Option(help="Address for DICOM; loopback unless told otherwise.")
    ] = None,
    dicom_port: Annotated[int | None, typer.Option(help="Port for DICOM [11112].")] = None,
    http_host: Annotated[
        str | None, typer.Option(help="Address for the API; loopback unless told otherwise.")
    ] = None,
    http_port: Annotated[int | None, typer.Option(help="Port for the API [8080].")] = None,
    dicomweb_host: Annotated[
        str | None, typer.Option(help="Address for DICOMweb; loopback unless told otherwise.")
    ] = None,
    dicomweb_port: Annotated[int | None, typer.Option(help="Port for DICOMweb [8081].")] = None,
    ae_title: Annotated[
        str | None, typer.Option(help="AE title of this installation [COUNTERSIGN].")
    ] = None,
    quiet_period_s: Annotated[
        float | None,
        typer.Option(help="A study without a new instance for so many seconds is complete [30]."),
    ] = None,
) -> None:
    """Run every service on this machine: the embedded form.

    Every other setting is a COUNTERSIGN_* variable (docs/settings.md).
    """
    flags = {
        "DICOM_HOST": dicom_host,
        "DICOM_PORT": dicom_port,
        "HTTP_HOST": http_host,
        "HTTP_PORT": http_port,
        "DICOMWEB_HOST": dicomweb_host,
        "DICOMWEB_PORT": dicomweb_port,
        "AE_TITLE": ae_title,
        "QUIET_PERIOD_S": quiet_period_s,
    }
    os.environ.update(
        {f"COUNTERSIGN_{name}": str(value) for name, value in flags.items() if value is not None}
    )
    use(data)
    from countersign.up import UpSettings
    from countersign.up import up as run
    from service_runtime.settings import load

    raise typer.Exit(run(load(UpSettings)))


@app.command()
def demo(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="DICOM files or folders; without any a chest phantom is drawn."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the demo's data and results in this folder."),
    ] = None,
) -> None:
    """Take one study from C-STORE to a signed report, in a system of its own."""
    from countersign.demo import demo as run

    raise typer.Exit(run(files or [], keep))


@app.command()
def send(
    files: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.")],
    to: Annotated[str, typer.Option(metavar="AET@HOST:PORT", help="Where to.")],
    calling_ae_title: Annotated[
        str, typer.Option(help="Our AE title in the association.")
    ] = "COUNTERSIGN_SCU",
) -> None:
    """Send DICOM files by C-STORE, each in its own transfer syntax.

    Ends with 1 when a file is not DICOM, or was not taken.
    """
    from countersign.send_command import send_files

    raise typer.Exit(send_files(files, to, calling_ae_title))


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def train(context: typer.Context) -> None:
    """Make a model folder from labeled pictures; takes what `python -m model_training` takes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    command = [sys.executable, "-m", "model_training", *context.args]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - the same interpreter


@audit.command()
def verify(data: DataOption = None) -> None:
    """Check that nobody has changed or removed a line of the history."""
    from countersign.audit import verify_history

    with open_database(data) as database:
        raise typer.Exit(verify_history(database))


@db.command()
def upgrade(data: DataOption = None) -> None:
    """Make the database, or bring it to this release."""
    use(data)
    from imaging_store.migrations import upgrade as run
    from service_runtime.settings import BrokerSettings, load

    typer.echo(f"the database is at revision {run(load(BrokerSettings).database)}")


@app.command("self-test")
def self_test(
    data: DataOption = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="AET@HOST:PORT",
            help="A running system to send a phantom to; without it one is started for the test.",
        ),
    ] = None,
) -> None:
    """Check, line by line, that this machine can run the product."""
    use(data)
    from countersign.self_test import self_test as run

    raise typer.Exit(run(to))
