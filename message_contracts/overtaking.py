"""A request that waits in the routine lane, and is sent once more in the urgent one.

A message that lies in a queue cannot be moved to another. So a second one is sent, under an id that
follows from the first's: whoever comes to the first knows by it whether the second was handled.
"""

from uuid import UUID

from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.inference import InferenceRequested, Urgency


def overtaking_id(request_id: UUID) -> UUID:
    """Return the id of the message that overtakes the request of this id."""
    return derived_id("overtakes", request_id)


def overtaking(waiting: Envelope) -> InferenceRequested:
    """Return a request as the urgent lane takes it."""
    request = waiting.data(InferenceRequested)
    return request.model_copy(update={"urgency": Urgency.URGENT})
