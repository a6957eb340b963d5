"""``countersign send``: progress on the terminal, and a line for each file that was not taken."""

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from countersign.send import Address, Outcome, send, survey


def send_files(files: list[Path], to: str, calling_ae_title: str) -> int:
    """Send files and folders; return 0 only where every file was taken."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    address = Address.parse(to)
    found = survey(files)
    for outcome in found.skipped:
        console.print(f"{outcome.path}: skipped: {outcome.reason}")
    outcomes: list[Outcome] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(f"to {address}", total=len(found.sendable))

        def note(outcome: Outcome) -> None:
            progress.advance(task)
            outcomes.append(outcome)
            if not outcome.taken or outcome.status:
                progress.console.print(str(outcome))

        send(found.sendable, address, calling_ae_title=calling_ae_title, on_outcome=note)
    taken = sum(outcome.taken for outcome in outcomes)
    console.print(
        f"{taken} of {len(outcomes)} taken by {address}{_summary(outcomes, found.skipped)}"
    )
    return 0 if taken == len(outcomes) > 0 and not found.skipped else 1


def _summary(outcomes: list[Outcome], skipped: list[Outcome]) -> str:
    statuses = Counter(
        "no answer" if outcome.status is None else f"{outcome.status:04X}"
        for outcome in outcomes
        if not outcome.taken
    )
    parts = [f"{count} {status}" for status, count in sorted(statuses.items())]
    if skipped:
        parts.append(f"{len(skipped)} skipped")
    return f"; {', '.join(parts)}" if parts else ""
