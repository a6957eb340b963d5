"""The FHIR bridge: ``python -m fhir_bridge``."""

from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

from fhir_bridge.bundle import SentBundle
from fhir_bridge.client import FhirClient
from fhir_bridge.deliver import to_folder, to_server
from fhir_bridge.handlers import SOURCE, Bridge, Deliver
from fhir_bridge.references import Site
from fhir_bridge.settings import BridgeSettings
from fhir_bridge.signed_report import SignedReport
from imaging_store.instances import open_instance_store
from message_contracts import topology
from message_contracts.delivery import ResourceOutcome
from service_runtime.messaging.consumer import Handling
from service_runtime.process import Service, run_service

EHR_OUTBOX = "ehr-outbox"
"""Folder of the data folder for Bundles and PDFs while there is no EHR."""


def main() -> None:
    """Run until told to stop."""
    run_service(SOURCE, BridgeSettings, serve)


def serve(service: Service[BridgeSettings]) -> None:
    """Consume ``report.requested`` until told to stop."""
    settings = service.settings
    bridge = Bridge(
        database=service.database,
        store=open_instance_store(settings.store),
        site=Site(settings.institution_name, settings.department_name),
        zone=ZoneInfo(settings.time_zone),
        patient_id_systems=settings.fhir_patient_id_systems,
        deliver=delivery(settings),
        now=lambda: datetime.now(UTC),
    )
    handling = Handling(bridge.on_report_requested, on_exhausted=bridge.on_exhausted)
    service.ready()
    service.messaging.consume(
        {topology.REPORT: handling},
        service.stop,
        prefetch=1,
        # Several requests to the EHR, and a report to render.
        handler_deadline_s=6 * settings.fhir_timeout_s + 120,
    )


def delivery(settings: BridgeSettings) -> Deliver:
    """Return how reports are delivered: to the EHR, or to a folder while there is none."""
    if settings.fhir_url:
        return partial(_to_server, FhirClient(settings.fhir_url, settings.fhir_timeout_s))
    return partial(to_folder, settings.data_dir / EHR_OUTBOX)


def _to_server(
    client: FhirClient, report: SignedReport, bundle: SentBundle, _pdf: bytes
) -> tuple[ResourceOutcome, ...]:
    return to_server(client, report, bundle)


if __name__ == "__main__":
    main()
