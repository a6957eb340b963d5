"""What can go wrong, divided by whether trying again would help."""


class CountersignError(Exception):
    """Any failure that we foresaw."""


class TransientError(CountersignError):
    """Trying again later may help: a peer is away, a lock is held, a disk is full."""


class Postponed(TransientError):
    """Nothing has failed: a person or a time has to come first. Waiting uses up no attempt.

    Parameters
    ----------
    reason
        What is waited for.
    delay_s
        After how long to look again.
    """

    def __init__(self, reason: str, delay_s: float) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class PermanentError(CountersignError):
    """Trying again cannot help: a person has to look."""
