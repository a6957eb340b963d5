"""What is told while a training runs: lines, and a bar where somebody looks."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[str], None]
"""Called after each step with a few words, such as the loss."""


class Reporter:
    """Lines with the seconds since the start on stdout; a bar on stderr if that is a terminal."""

    def __init__(self, lines: TextIO | None = None, bar: TextIO | None = None) -> None:
        self._began_s = time.monotonic()
        self._lines = lines or sys.stdout
        self._console = Console(file=bar or sys.stderr)

    def line(self, text: str) -> None:
        """Say one thing, also where nobody looks: it ends up in a log."""
        took_s = time.monotonic() - self._began_s
        self._lines.write(f"[{took_s:6.0f} s] {text}\n")
        self._lines.flush()

    @contextmanager
    def bar(self, title: str, total: int, done: int) -> Iterator[Advance]:
        """Show how far a part has come, of which ``done`` were done before."""
        if not self._console.is_terminal:
            yield lambda _: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(title, total=total, completed=done, words="")
            yield lambda words: progress.update(task, advance=1, words=words)
