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
        default=1200,
        gt=0,
        description=(
            "A reading that takes longer is taken to hang: the worker leaves with code 70 and "
            "the reading is tried again."
        ),
    )
    studies_at_once: int = Field(
        default=4,
        ge=1,
        le=64,
        description=(
            "So many routine studies are read at the same time, their pictures given to a model "
            "together; an urgent one is read beside them."
        ),
    )
    forward_deadline_s: float = Field(
        default=60,
        gt=0,
        description=(
            "A model that gives no answer to a batch of pictures for so long is stopped and begun "
            "again; one that does so again and again is set aside."
        ),
    )
    model_memory_mib: int = Field(
        default=4096,
        ge=256,
        description="A model whose process takes more memory is stopped likewise.",
    )
