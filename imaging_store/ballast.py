"""Room that is held while there is enough, for those who make room when there is none.

To let go of instances the database has to write first, and it may lie on the same, full file
system: then what it needs is taken from here.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SHARE_OF_RESERVE = 4
_MOST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ballast:
    """One file of no use, in the folder of the store."""

    path: Path
    size_bytes: int

    @classmethod
    def of(cls, root: Path, reserve_bytes: int) -> "Ballast":
        """Return the ballast of a store with this reserve, of which it is a small part."""
        return cls(root / ".ballast", min(_MOST_BYTES, reserve_bytes // _SHARE_OF_RESERVE))

    def hold(self) -> None:
        """Take the room, unless it is held already; where it cannot be had, leave it."""
        if not self.size_bytes or self.path.exists():
            return
        with suppress(OSError):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.size_bytes)
            except OSError:
                self.path.unlink()
            finally:
                os.close(descriptor)

    def drop(self) -> bool:
        """Give the room up; return whether any was held."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True
