"""Settings of the FHIR bridge."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from service_runtime.settings import ServiceSettings, StoreSettings


def _fhir_url(value: str) -> str:
    parts = urlsplit(value)
    if value and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("neither http://HOST/BASE nor https://HOST/BASE")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the base of a FHIR server has no user, query or fragment")
    return value.rstrip("/")


class BridgeSettings(ServiceSettings, StoreSettings):
    """Where reports go, and in whose name."""

    fhir_url: Annotated[str, AfterValidator(_fhir_url)] = Field(
        default="",
        description=(
            "Base of the EHR's FHIR R4 server. Without it, Bundles and PDFs are written to "
            "ehr-outbox in the data folder."
        ),
    )
    fhir_timeout_s: float = Field(
        default=60, gt=0, le=600, description="How long the EHR may take to answer a request."
    )
    fhir_patient_id_systems: dict[str, str] = Field(
        default={},
        description=(
            "JSON object from Issuer of Patient ID to the identifier system (a URI) by which the "
            "EHR knows its patients. An issuer that is not in it gets a system derived from it."
        ),
    )
    department_name: str = Field(
        default="Department of Radiology",
        min_length=1,
        max_length=64,
        description="The department that performs reports, as it stands on them.",
    )
