"""What ``workflow_engine`` is told at its start."""

from pydantic import Field

from message_contracts.destination import PacsDestination
from service_runtime.settings import ServiceSettings, Settings


class DestinationSettings(Settings):
    """Where results may go."""

    pacs_destinations: tuple[PacsDestination, ...] = Field(
        default=(),
        description=(
            "PACS that results are attached to, a JSON list of objects with name, ae_title, host, "
            "port and release (REPORT_READY, DOCTOR_VERIFIED or AI_ANALYZED)."
        ),
    )


class WorkflowSettings(ServiceSettings, DestinationSettings):
    """The settings of ``workflow_engine``."""
