"""The process of DICOMweb: ``python -m dicom_listener.dicomweb``."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog

from dicom_listener.application_entities import look_up
from dicom_listener.dicomweb.app import make_app
from dicom_listener.dicomweb.installation import DicomWeb
from dicom_listener.dicomweb.posting import CALLING_AE_TITLE, Posting, receptions
from dicom_listener.dicomweb.settings import DicomWebSettings
from dicom_listener.index import OwnIndex
from dicom_listener.open_associations import open_for
from dicom_listener.peers import Peer, peer_of
from dicom_listener.reception import InstanceKeeper
from dicom_listener.sender import Sender
from dicom_listener.settings import MEBIBYTE
from imaging_store.instances import open_instance_store
from service_runtime.access_tokens import AUDIENCE, ISSUER, TokenAuthority
from service_runtime.http_server import HttpServer, listen
from service_runtime.process import Service, run_service

NAME = "dicom_listener.dicomweb"
_LOG = structlog.get_logger()


def _now() -> datetime:
    return datetime.now(UTC)


def serve(service: Service[DicomWebSettings]) -> None:
    """Answer until told to stop."""
    settings, database = service.settings, service.database
    store = open_instance_store(settings.store, reserve_bytes=settings.store_reserve_mib * MEBIBYTE)
    keeper = InstanceKeeper(store, database, OwnIndex(database), _now)
    site = Peer(
        ae_title=CALLING_AE_TITLE,
        quiet_period=timedelta(seconds=settings.quiet_period_s),
        default_issuer_of_patient_id=settings.default_issuer_of_patient_id,
        zone=ZoneInfo(settings.time_zone),
    )

    def post(study_instance_uid: str, boundary: str) -> Posting:
        # What is listed under this name holds for whatever is posted.
        entry = look_up(database, CALLING_AE_TITLE).entry
        association = open_for(CALLING_AE_TITLE)
        sender = Sender(peer_of(CALLING_AE_TITLE, entry, site), settings.ae_title, association)
        return Posting(
            receptions(keeper, sender, study_instance_uid),
            boundary,
            lambda: keeper.association_ended(association),
        )

    app = make_app(
        DicomWeb(
            database=database,
            store=store,
            authority=TokenAuthority(settings.signing_key(), ISSUER, AUDIENCE),
            clock=_now,
            post=post,
            longest_post_bytes=settings.dicomweb_max_post_mib * MEBIBYTE,
        ),
        settings.dicomweb_origins,
    )
    listening = listen(settings.dicomweb_host, settings.dicomweb_port, setting="DICOMWEB")
    server = HttpServer(app, listening)
    server.start()
    try:
        _LOG.info("dicomweb.listening", host=settings.dicomweb_host, port=server.port)
        service.ready()
        server.wait(service.stop)
    finally:
        server.close()


def main() -> None:
    """Run the service."""
    run_service(NAME, DicomWebSettings, serve)


if __name__ == "__main__":
    main()
