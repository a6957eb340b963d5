"""The process of ``admin_api``: answers HTTP."""

from datetime import UTC, datetime

import structlog

from admin_api.app import make_app
from admin_api.installation import Api
from admin_api.operations import service_checks
from admin_api.settings import ApiSettings
from imaging_store.instances import open_instance_store
from imaging_store.retention import Retention, room_of
from service_runtime.access_tokens import AUDIENCE, ISSUER, TokenAuthority
from service_runtime.http_server import HttpServer, listen
from service_runtime.process import Service, run_service
from workflow_engine.commands import Desk

_LOG = structlog.get_logger()


def _now() -> datetime:
    return datetime.now(UTC)


def serve(service: Service[ApiSettings]) -> None:
    """Answer until told to stop."""
    settings = service.settings
    checks = dict(service.checks)
    if not settings.via_broker:
        checks |= service_checks(service.database, _now)
    store = open_instance_store(settings.store)
    api = Api(
        database=service.database,
        store=store,
        authority=TokenAuthority(settings.signing_key(), ISSUER, AUDIENCE),
        desk=Desk(service.database, settings.pacs_destinations),
        clock=_now,
        token_lifetime_s=settings.token_lifetime_s,
        retention=Retention.of(settings),
        room=lambda: room_of(store.root),
        checks=checks,
    )
    server = HttpServer(make_app(api), listen(settings.http_host, settings.http_port))
    server.start()
    try:
        _LOG.info("api.listening", host=settings.http_host, port=server.port)
        service.ready()
        server.wait(service.stop)
    finally:
        server.close()


def main() -> None:
    """Run the service."""
    run_service("admin_api", ApiSettings, serve)


if __name__ == "__main__":
    main()
