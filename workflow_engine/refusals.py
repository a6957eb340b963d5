"""Why a person's act, or a message, is refused; whoever asked gets to know."""

from service_runtime.errors import PermanentError


class Refusal(PermanentError):
    """What was asked is not done, and nothing has changed."""


class IllegalTransition(Refusal):
    """The case is not where this may happen; the table of ``workflow_engine.case`` has no row."""


class OnHold(Refusal):
    """The case is on hold; a person has to release it first."""


class WrongRole(Refusal):
    """The case waits for somebody of another role."""


class SameSigner(Refusal):
    """The person has already signed another stage of the same version."""


class StaleCase(Refusal):
    """The case has changed since the person looked at it."""


class NothingToAgreeWith(Refusal):
    """There is no finding, or the model was uncertain."""


class UnknownCase(Refusal):
    """There is no case of this id."""


class UndecidedConflict(Refusal):
    """A conflict keeps the case on hold; a person has to decide it."""


class UnknownConflict(Refusal):
    """The case's study has no conflict of this id."""


class AlreadyDecided(Refusal):
    """Somebody has decided the conflict before."""
