"""What became of files that no row claims."""

import os
from typing import NamedTuple

from service_runtime.errors import TransientError


class NotRead(TransientError):
    """Files or folders of the store could not be read just now; nothing is concluded from that."""


class Recovered(NamedTuple):
    """What became of files that no row claims, by their keys."""

    entered: list[str]
    """A row claims them now."""
    unusable: list[str]
    """They are no instances of ours: they will never be entered."""
    not_read: list[str]
    """They could not be read just now."""
    damaged: dict[str, os.stat_result]
    """They have not the digest that their names say, and will never be entered; as they were."""
