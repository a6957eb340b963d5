"""The sender: ``python -m dicom_sender``."""

from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

import pydicom

from dicom_sender.branches import Branch, Branches, Gate, Sorting, with_something_in_it
from dicom_sender.caller import caller_of
from dicom_sender.committing import Committer
from dicom_sender.handlers import SOURCE, Sender
from dicom_sender.send import send
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
    """Consume the queue ``attachment`` and its branches until told to stop."""
    settings = service.settings
    destinations = {each.name: each for each in settings.pacs_destinations}
    sender = _sender(service, destinations)
    sorting = Sorting(destinations, sender.now)
    branches = {
        name: Branch(Handling(sender, on_exhausted=sender.on_exhausted))
        for name in with_something_in_it(service.database)
    } | {name: _branch(sender, destination) for name, destination in destinations.items()}
    queue = {topology.ATTACHMENT: Handling(sorting, on_exhausted=sender.on_exhausted)}
    service.ready()
    Branches(service.messaging, branches, service.stop).run_beside(
        lambda: service.messaging.consume(queue, service.stop)
    )


def _sender(service: Service[SenderSettings], destinations: dict[str, PacsDestination]) -> Sender:
    settings = service.settings
    caller = caller_of(settings)
    store = open_instance_store(settings.store)
    now = partial(datetime.now, UTC)
    return Sender(
        database=service.database,
        store=store,
        destinations=destinations,
        send=lambda destination, batch: send(destination, caller, store, batch),
        now=now,
        time_zone=ZoneInfo(settings.time_zone),
        commit=Committer(service.database, caller, now, settings.commitment_wait_s, service.stop),
        stop=service.stop,
    )


def _branch(sender: Sender, destination: PacsDestination) -> Branch:
    retry = topology.RetryPolicy(**destination.retry.model_dump())
    return Branch(
        Handling(sender, on_exhausted=sender.on_exhausted, retry=retry),
        Gate(destination, sender.database, sender.now, sender.time_zone),
    )


if __name__ == "__main__":
    main()
