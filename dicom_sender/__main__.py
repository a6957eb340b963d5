"""The sender: ``python -m dicom_sender``."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pydicom

from dicom_sender.handlers import SOURCE, Sender
from dicom_sender.send import Caller, send
from dicom_sender.settings import SenderSettings
from imaging_store.instances import open_instance_store
from message_contracts import topology
from message_contracts.destination import PacsDestination
from service_runtime.messaging.consumer import Handling
from service_runtime.process import Service, run_service


def main() -> None:
    """Run until told to stop."""
    pydicom.config.INVALID_KEYWORD_BEHAVIOR = "RAISE"
    run_service(SOURCE, SenderSettings, serve)


def serve(service: Service[SenderSettings]) -> None:
    """Consume ``attachment.requested`` until told to stop."""
    settings = service.settings
    caller = Caller(settings.ae_title, settings.pacs_timeout_s)

    def send_as_us(
        destination: PacsDestination,
        instances: Sequence[bytes],
        on_answer: Callable[[str, int], None],
    ) -> None:
        send(destination, caller, instances, on_answer)

    sender = Sender(
        database=service.database,
        store=open_instance_store(settings.store),
        destinations={each.name: each for each in settings.pacs_destinations},
        send=send_as_us,
        now=lambda: datetime.now(UTC),
    )
    service.ready()
    service.messaging.consume(
        {
            topology.ATTACHMENT: Handling(
                sender.on_attachment_requested, on_exhausted=sender.on_exhausted
            )
        },
        service.stop,
        prefetch=1,
    )


if __name__ == "__main__":
    main()
