"""Exchange, queues, bindings and retry policies, as data; both forms read the same table."""

from dataclasses import dataclass

from message_contracts.delivery import (
    AttachmentDelivered,
    AttachmentFailed,
    AttachmentRequested,
    CommitmentReported,
    RejectionDelivered,
    RejectionFailed,
    RejectionRequested,
    ReportDelivered,
    ReportFailed,
    ReportRequested,
)
from message_contracts.inference import (
    ExplanationRequested,
    InferenceCompleted,
    InferenceFailed,
    InferenceRequested,
    Urgency,
)
from message_contracts.ingest import StudyConflicted, StudyOpened, StudyReceived, StudyUpdated
from message_contracts.intake import (
    CompletionRequested,
    ConflictDecided,
    ConflictSettled,
    ConflictUnsettled,
    InstanceDuplicated,
    QuarantineDecided,
)
from message_contracts.message import Message

EXCHANGE = "countersign"
"""The topic exchange that every message is published to."""

DEAD_LETTER_EXCHANGE = "countersign.dead"


@dataclass(frozen=True)
class RetryPolicy:
    """When a message whose handling failed is tried again, and how often in all."""

    first_delay_s: float
    multiplier: float
    cap_s: float
    attempts: int

    def delay_s(self, attempt: int) -> float:
        """Return how long to wait after the attempt of this number, counted from 1."""
        # The exponent is bounded because a float overflows long before attempts run out.
        return min(self.first_delay_s * self.multiplier ** min(attempt - 1, 64), self.cap_s)


@dataclass(frozen=True)
class Queue:
    """A queue, the routing keys bound to it, and how its failures are retried."""

    name: str
    routing_keys: tuple[str, ...]
    retry: RetryPolicy

    @property
    def dead_letter_queue(self) -> str:
        """The broker's own queue for what never reached our code."""
        return f"{self.name}.dead"


BRANCH_MARK = "/"
"""Stands in the name of a branch, and of no queue."""

_OURS = RetryPolicy(first_delay_s=0.5, multiplier=2, cap_s=60, attempts=20)
_MODEL = RetryPolicy(first_delay_s=2, multiplier=3, cap_s=120, attempts=5)
_PEER = RetryPolicy(first_delay_s=2, multiplier=2, cap_s=600, attempts=150)
"""About a day: a PACS or an EHR may be away for a night."""

INTAKE = "intake"
WORKFLOW = "workflow"
INFERENCE_URGENT = "inference.urgent"
INFERENCE_ROUTINE = "inference.routine"
ATTACHMENT = "attachment"
REPORT = "report"

QUEUES: dict[str, Queue] = {
    queue.name: queue
    for queue in (
        Queue(
            INTAKE,
            (
                CompletionRequested.TYPE,
                ConflictDecided.TYPE,
                InstanceDuplicated.TYPE,
                QuarantineDecided.TYPE,
            ),
            _OURS,
        ),
        Queue(
            WORKFLOW,
            tuple(
                message.TYPE
                for message in (
                    StudyOpened,
                    StudyReceived,
                    StudyUpdated,
                    StudyConflicted,
                    ConflictSettled,
                    ConflictUnsettled,
                    InferenceCompleted,
                    InferenceFailed,
                    AttachmentDelivered,
                    AttachmentFailed,
                    RejectionDelivered,
                    RejectionFailed,
                    ReportDelivered,
                    ReportFailed,
                )
            ),
            _OURS,
        ),
        # Quorum queues have no priorities: an urgent lane is a second queue, read first.
        # Who asks for an explanation sits and waits for it.
        Queue(
            INFERENCE_URGENT,
            (f"{InferenceRequested.TYPE}.{Urgency.URGENT}", ExplanationRequested.TYPE),
            _MODEL,
        ),
        Queue(INFERENCE_ROUTINE, (f"{InferenceRequested.TYPE}.{Urgency.ROUTINE}",), _MODEL),
        Queue(
            ATTACHMENT,
            (AttachmentRequested.TYPE, CommitmentReported.TYPE, RejectionRequested.TYPE),
            _PEER,
        ),
        Queue(REPORT, (ReportRequested.TYPE,), _PEER),
    )
}


def queues_for(message: Message) -> tuple[str, ...]:
    """Return the names of the queues that a message is bound to."""
    return tuple(
        queue.name for queue in QUEUES.values() if message.routing_key in queue.routing_keys
    )


def branch_of(queue: str, name: str) -> str:
    """Return the name of a branch: a part of a queue with a consumer of its own.

    What is slow in one branch holds up no other. It is rows of the delivery table in both forms;
    the broker knows none.
    """
    return f"{queue}{BRANCH_MARK}{name}"


def queue_of(branch: str) -> str:
    """Return the name of the queue that a branch belongs to; of a queue, its own."""
    return branch.partition(BRANCH_MARK)[0]
