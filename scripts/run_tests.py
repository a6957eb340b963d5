#!/usr/bin/env python3
"""Run the tests, tier by tier, and end with one line: how many passed, how many failed."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

CHECKOUT = Path(__file__).resolve().parent.parent

TIERS = {
    "unit": ["tests/unit", "tests/architecture", "-m", "not tensorflow and not soak", "-n", "2"],
    # A process with TensorFlow takes seconds and half a gigabyte to start, so no more than two;
    # tracing keeps one core busy, and a module's tests share what they have trained.
    # In the order of folders: by the number of tests, the longest would come last and run alone.
    "tensorflow": [
        *("tests/unit", "tests/integration", "-m", "tensorflow and not soak"),
        *("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
    ],
    # Most of their time is waiting for servers; a module's tests share theirs.
    "integration": [
        *("tests/integration", "-m", "not tensorflow and not soak"),
        *("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"),
    ],
    # One process for each form; what has no form goes to the one that ends first.
    "acceptance": ["tests/acceptance", "-m", "not soak", "-n", "2"],
}


@dataclass(frozen=True)
class Outcome:
    """What became of the tests of a tier."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )


def run(tier: str, arguments: list[str], report: Path) -> Outcome:
    """Run one tier. pytest ending without a report counts as one failure."""
    sys.stdout.write(f"\n===== {tier}\n")
    sys.stdout.flush()
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--continue-on-collection-errors",
        *arguments,
        f"--junitxml={report}",
    ]
    exit_code = subprocess.run(command, cwd=CHECKOUT, env=environment(), check=False).returncode  # noqa: S603
    outcome = read(report)
    if exit_code and not outcome.failed:
        outcome += Outcome(failed=1)
    sys.stdout.write(f"===== {tier}: {time.monotonic() - began:.0f} s, exit code {exit_code}\n")
    return outcome


def environment() -> dict[str, str]:
    """Return ours, with one seed for all tiers, from which also sets take their order.

    The processes of a tier must agree on the order of its tests; another run may have another.
    """
    seed = os.environ.setdefault("COUNTERSIGN_TEST_SEED", str(secrets.randbelow(1_000_000)))
    return {**os.environ, "PYTHONHASHSEED": seed}


def read(report: Path) -> Outcome:
    """Return the counts of a JUnit report."""
    if not report.exists():
        return Outcome()
    outcome = Outcome()
    # A file that pytest has just written for us.
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314
        count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        failed = count["failures"] + count["errors"]
        passed = max(count["tests"] - failed - count["skipped"], 0)
        outcome += Outcome(passed, failed, count["skipped"])
    return outcome


def main() -> int:
    """Run every tier, also after a failure; return 1 when anything failed."""
    # Told to stop, take pytest along: its death takes the servers that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = sys.argv[1:] or os.environ.get("TIERS", "").split() or list(TIERS)
    total = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        for tier in chosen:
            total += run(tier, TIERS[tier], Path(folder) / f"{tier}.xml")
    if total.skipped:
        sys.stdout.write(f"\n{total.skipped} skipped, each with its reason above\n")
    sys.stdout.write(f"\n{total.passed} passed, {total.failed} failed\n")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
