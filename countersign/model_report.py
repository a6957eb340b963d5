"""``countersign models report``: how a model does, by its answers and what doctors signed."""

# ruff: noqa: PLC0415 - --help must answer at once

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from countersign.installation import DataOption, open_database
from service_runtime.errors import PermanentError

if TYPE_CHECKING:
    from workflow_engine.figures import Share
    from workflow_engine.model_monitoring import ModelReport, Spread

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


class NoSuchModel(PermanentError):
    """The version was never installed here."""


def add_to(app: typer.Typer) -> None:
    """Give the command to ``countersign models``."""
    app.command("report")(report)


def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="NAME or NAME@VERSION.")],
    since: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="UTC; by default 30 days before.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="UTC; by default now.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, a line a version.")] = False,  # noqa: FBT002 - a flag
    data: DataOption = None,
) -> None:
    """Show volume, findings, refusals, agreement with doctors and drift of inputs."""
    from imaging_store.model_registry import registered_models
    from workflow_engine.model_monitoring import report as report_on
    from workflow_engine.watched_time import NoSuchTime, watched_time

    try:
        begin, end = watched_time(
            since and since.replace(tzinfo=UTC),
            until and until.replace(tzinfo=UTC),
            datetime.now(UTC),
        )
    except NoSuchTime as error:
        raise typer.BadParameter(str(error)) from None
    wanted, _, version = name.partition("@")
    with open_database(data) as database, database.reading() as connection:
        found = [
            each
            for each in registered_models(connection)
            if each.reference.name == wanted and version in {"", each.reference.version}
        ]
        if not found:
            raise NoSuchModel(f"{name}: no such model was ever installed")
        for each in found:
            made = report_on(connection, each, begin, end)
            for line in [made.model_dump_json()] if as_json else told(made):
                typer.echo(line)


def told(of: "ModelReport") -> Iterator[str]:
    """Tell a report, line by line."""
    yield f"{of.model}@{of.version}  {of.since:%Y-%m-%d %H:%MZ} to {of.until:%Y-%m-%d %H:%MZ}"
    yield (
        f"  answered {of.answered}: read {of.read} ({of.uncertain} uncertain), "
        f"refused {of.refused}, failed {of.failed}"
    )
    if not of.answered:
        return
    yield f"  refusal rate: {_share(of.refusal_rate)}"
    yield "  findings: " + ", ".join(f"{label} {count}" for label, count in of.findings.items())
    yield "  confidence, from 0 to 1 in tenths: " + " ".join(map(str, of.confidence))
    yield f"  signed by a doctor {of.signed}; they agree: {_share(of.agreement)}"
    for each in of.by_class:
        yield (
            f"    {each.label}: accepted {each.accepted}, overridden {each.overridden}, "
            f"uninterpretable {each.uninterpretable}"
        )
    yield f"  brightness {_spread(of.brightness)}, contrast {_spread(of.contrast)}"
    if of.drift is None:
        yield f"  drift of inputs: not known; {of.no_drift_known or 'no distance was stored'}"
    else:
        yield (
            f"  drift of inputs: {of.drift.shift}; PSI {of.drift.psi:.3f} over {of.drift.compared} "
            f"studies, by chance up to {of.drift.psi_by_chance:.3f}"
        )


def _share(of: "Share | None") -> str:
    if of is None:
        return "nothing to tell"
    return f"{of.share:.1%} ({of.count} of {of.of}; 95 % interval {of.low:.1%} to {of.high:.1%})"


def _spread(of: "Spread | None") -> str:
    return "not known" if of is None else f"{of.mean:g} ± {of.standard_deviation:g}"
