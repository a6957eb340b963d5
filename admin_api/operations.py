"""How the installation is: health and metrics, for those who watch it."""

from collections.abc import Callable, Sequence
from datetime import datetime
from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from admin_api.installation import ApiDependency
from service_runtime import heartbeat
from service_runtime.database import Database
from service_runtime.health import Check, examine
from service_runtime.telemetry import metrics

OTHER_SERVICES = (
    "dicom_listener",
    "dicom_listener.dicomweb",
    "dicom_sender",
    "inference_worker",
    "workflow_engine",
    "fhir_bridge",
)
"""In the embedded form this address answers for them too."""

router = APIRouter(tags=["operations"])


@router.get("/health/live")
def live() -> dict[str, str]:
    """Tell that this process answers."""
    return {"status": "live"}


@router.get("/health/ready")
def ready(api: ApiDependency) -> JSONResponse:
    """Tell whether this service, and in the embedded form every service, does its work."""
    health = examine(api.checks)
    status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse(health.body(), status_code=status)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def read_metrics(api: ApiDependency) -> Response:
    """Get the metrics in Prometheus' text format."""
    return Response(metrics.exposition(api.database), headers={"Content-Type": CONTENT_TYPE_LATEST})


def service_checks(
    database: Database, clock: Callable[[], datetime], services: Sequence[str] = OTHER_SERVICES
) -> dict[str, Check]:
    """Return a check for each service, by what its heartbeats tell."""

    def check_of(service: str) -> Check:
        def check() -> str:
            beats = heartbeat.fresh(database, clock())
            return heartbeat.readiness_of(beats, [service])[service]

        return check

    return {service: check_of(service) for service in services}
