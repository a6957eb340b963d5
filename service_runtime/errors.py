"""What can go wrong, divided by whether trying again would help."""


class CountersignError(Exception):
    """Any failure that we foresaw."""


class TransientError(CountersignError):
    """Trying again later may help: a peer is away, a lock is held, a disk is full."""


class PermanentError(CountersignError):
    """Trying again cannot help: a person has to look."""
