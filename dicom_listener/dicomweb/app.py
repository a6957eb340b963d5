"""The application: the resources of the Studies service under ``/dicom-web``."""

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from dicom_listener.dicomweb import frames, qido, rendered, stow, wado
from dicom_listener.dicomweb.installation import PREFIX, DicomWeb
from service_runtime.http_log import RequestLog
from service_runtime.problem_details import answer_with_problems


def make_app(dicomweb: DicomWeb, origins: Sequence[str] = ()) -> FastAPI:
    """Return the application of an installation; pages of ``origins`` may ask it (CORS)."""
    app = FastAPI(title="Countersign DICOMweb", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.dicomweb = dicomweb
    for router in (qido.router, stow.router, rendered.router, frames.router, wado.router):
        app.include_router(router, prefix=PREFIX)
    answer_with_problems(app)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Accept", "Content-Type"],
            expose_headers=["Warning", "Retry-After"],
        )
    app.add_middleware(RequestLog)
    return app
