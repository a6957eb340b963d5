"""The process of ``workflow_engine``: reads the queue ``workflow``."""

from datetime import UTC, datetime

from message_contracts import topology
from service_runtime.process import Service, run_service
from workflow_engine.on_message import WorkflowHandler
from workflow_engine.settings import WorkflowSettings
from workflow_engine.watching import Watching


def serve(service: Service[WorkflowSettings]) -> None:
    """Take messages to their cases until told to stop."""
    handler = WorkflowHandler(service.settings.pacs_destinations)
    with Watching(service.database, lambda: datetime.now(UTC)):
        service.ready()
        service.messaging.consume({topology.WORKFLOW: handler}, service.stop)


def main() -> None:
    """Run the service."""
    run_service("workflow_engine", WorkflowSettings, serve)


if __name__ == "__main__":
    main()
