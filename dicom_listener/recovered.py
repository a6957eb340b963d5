"""What became of files that no row claims."""

from typing import NamedTuple

from service_runtime.errors import TransientError


class NotRead(TransientError):
    """Files or folders of the store could not be read just now; nothing is concluded from that."""


class Recovered(NamedTuple):
    """What became of files that no row claims, by their keys."""

    entered: list[str]
    """A row claims them now."""
    unusable: list[str]
    """They are no instances of ours, or damaged: they will never be entered."""
    not_read: list[str]
    """They could not be read just now."""
