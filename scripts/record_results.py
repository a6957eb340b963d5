#!/usr/bin/env python3
"""Run a measurement, and put what it printed as JSON into its section of ``bench/RESULTS.md``.

``record_results.py HEADING COMMAND...``. A section of the same heading is replaced; a measurement
that failed leaves the page as it is.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "bench" / "RESULTS.md"
INTRODUCTION = """\
# Results

What the measurements of this folder printed, each with the command that repeats it. Figures of
different machines, or of one machine under different load, do not compare; ratios within a run do.
"""


def measured(output: str) -> list[object]:
    """Return every JSON object that begins at the start of a line, over however many lines."""
    found = []
    decoder = json.JSONDecoder()
    position = 0
    while begin := re.compile(r"^[{\[]", re.MULTILINE).search(output, position):
        try:
            value, position = decoder.raw_decode(output, begin.start())
        except ValueError:
            position = begin.end()
        else:
            found.append(value)
    return found


def machine() -> str:
    """Return what the figures were measured on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} x {name}, Python {platform.python_version()}"


def with_section(page: str, heading: str, body: str) -> str:
    """Return the page with the section of this heading replaced, or added at its end."""
    sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    kept = [section for section in sections if section.partition("\n")[0] != f"## {heading}"]
    return "\n".join(section.rstrip() + "\n" for section in [*kept, f"## {heading}\n\n{body}"])


def main() -> int:
    """Run the command, showing what it prints; return its exit code."""
    heading, *command = sys.argv[1:]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    run = subprocess.run(  # noqa: S603 - what the Makefile says
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    sys.stdout.write(run.stdout)
    results = measured(run.stdout)
    if run.returncode or not results:
        return run.returncode or 1
    figures = "\n".join(json.dumps(result, indent=2, ensure_ascii=False) for result in results)
    body = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}.\n\n```json\n{figures}\n```"
    page = PAGE.read_text() if PAGE.exists() else INTRODUCTION
    PAGE.write_text(with_section(page, heading, body))
    return 0


if __name__ == "__main__":
    sys.exit(main())
