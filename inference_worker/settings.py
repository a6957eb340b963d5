"""Settings of the inference worker."""

from pathlib import Path

from pydantic import Field

from service_runtime.settings import ServiceSettings, StoreSettings

BESIDE_THE_PACKAGES = Path(__file__).resolve().parent.parent / "models"


class WorkerSettings(ServiceSettings, StoreSettings):
    """Which models there are, and how long one may take."""

    models_dir: Path = Field(
        default=BESIDE_THE_PACKAGES,
        description="Folder whose subfolders are model folders: model.yaml and weights.",
    )
    inference_deadline_s: float = Field(
        default=300,
        gt=0,
        description=(
            "A reading that takes longer is taken to hang: the worker leaves with code 70 and "
            "the reading is tried again."
        ),
    )
