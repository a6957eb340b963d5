"""The services of the product, by the names they are started with: ``python -m NAME``."""

SERVICES = (
    "dicom_listener",
    "dicom_listener.dicomweb",
    "dicom_sender",
    "inference_worker",
    "workflow_engine",
    "fhir_bridge",
    "admin_api",
)
