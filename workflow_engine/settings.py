"""What ``workflow_engine`` is told at its start."""

from service_runtime.settings import DestinationSettings, ServiceSettings


class WorkflowSettings(ServiceSettings, DestinationSettings):
    """The settings of ``workflow_engine``."""
