"""A file system so small that a test can fill it to the brim."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class SmallDisk:
    """A file system in memory, mounted on a folder."""

    folder: Path

    @property
    def free_bytes(self) -> int:
        """What is left."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all room but ``leave_bytes``, as somebody else's files would."""
        with (self.folder / "filler").open("ab", buffering=0) as filler, suppress(OSError):
            while (more := self.free_bytes - leave_bytes) > 0:
                filler.write(bytes(min(more, MEBIBYTE)))

    def make_room(self) -> None:
        """Take away what filled it."""
        (self.folder / "filler").unlink()


@contextmanager
def mounted(folder: Path, size_mib: int) -> Iterator[SmallDisk]:
    """Mount it; the test is skipped where that is not allowed."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    tried = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"only root may mount a file system: {tried.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
