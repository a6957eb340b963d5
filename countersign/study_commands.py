"""``countersign studies``: what is done to a study by hand."""

# ruff: noqa: PLC0415 - --help must answer at once

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from countersign.installation import DataOption, open_database
from countersign.why import said

if TYPE_CHECKING:
    from workflow_engine.commands import Desk, Request, Words

app = typer.Typer(help="Studies that arrive.", no_args_is_help=True)


@app.command()
def explain(
    study_instance_uid: Annotated[str, typer.Argument(metavar="STUDY_INSTANCE_UID")],
    label: Annotated[str, typer.Option("--class", help="The class to explain, by its label.")],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="A .png, or a .dcm: the Secondary Capture.")
    ],
    model: Annotated[
        str | None, typer.Option(help="NAME; needed where several have read it with this class.")
    ] = None,
    wait_s: Annotated[float, typer.Option(help="How long to wait for the worker.")] = 60,
    data: DataOption = None,
) -> None:
    """Have the model show what speaks for a class; the case stays as it is.

    Ends with 1 where it cannot, or gives no answer in time.
    """
    from countersign.explaining import Wish
    from countersign.explaining import explain as run

    with open_database(data) as database:
        made = run(database, Wish(study_instance_uid, label, model, wait_s))
        output.write_bytes(made.content(is_picture=output.suffix.lower() == ".png"))
    typer.echo(f"{made.sop_instance_uid} is in {output}")


@app.command()
def complete(
    study_instance_uid: Annotated[str, typer.Argument(metavar="STUDY_INSTANCE_UID")],
    why: Annotated[str, typer.Option(help="Kept with the case.", callback=said)],
    reason: Annotated[
        str, typer.Option(help="all_has_arrived, rest_will_not_come, cannot_wait or other.")
    ] = "other",
    data: DataOption = None,
) -> None:
    """Have what has arrived of a study taken as all of it; the listener carries it out."""
    from workflow_engine.commands import CompletionRequestReason, force_completion

    _act(force_completion, CompletionRequestReason, study_instance_uid, (reason, why), data)
    typer.echo(f"{study_instance_uid} is taken as complete")


@app.command()
def expedite(
    study_instance_uid: Annotated[str, typer.Argument(metavar="STUDY_INSTANCE_UID")],
    why: Annotated[str, typer.Option(help="Kept with the case.", callback=said)],
    reason: Annotated[
        str,
        typer.Option(help="patient_in_danger, ordered_as_urgent, patient_waits or other."),
    ] = "other",
    data: DataOption = None,
) -> None:
    """Have a study read before others, also where it waits in the queue already."""
    from workflow_engine.commands import UrgencyReason
    from workflow_engine.commands import expedite as make_urgent

    _act(make_urgent, UrgencyReason, study_instance_uid, (reason, why), data)
    typer.echo(f"{study_instance_uid} is read before others")


def _act(
    command: "Callable[[Desk, Request, Words], object]",
    reasons: type[StrEnum],
    study_instance_uid: str,
    said_words: tuple[str, str],
    data: Path | None,
) -> None:
    """Carry out a command on the case of a study, with one of ``reasons`` and what was said."""
    from datetime import UTC, datetime

    from countersign.shell_user import shell_user
    from message_contracts.identifiers import case_id_of
    from workflow_engine.commands import Desk, Request, Words

    reason, why = said_words
    try:
        words = Words(reasons(reason), why)
    except ValueError:
        known = ", ".join(reasons)
        raise typer.BadParameter(f"one of {known}", param_hint="--reason") from None
    request = Request(case_id_of(study_instance_uid), shell_user(), datetime.now(UTC))
    with open_database(data) as database:
        command(Desk(database), request, words)
