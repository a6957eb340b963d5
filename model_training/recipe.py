"""What is to be trained: a YAML file that says all of a model that no data can say."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from message_contracts.applicability import ApplicabilityRule
from message_contracts.model_description import ModelClass
from message_contracts.study_selection import StudySelection
from service_runtime.errors import PermanentError

RECIPES = Path(__file__).parent / "recipes"
Architecture = Literal[
    "mobilenet_v2", "mobilenet_v1", "resnet50v2_se", "densenet169", "efficientnet_b3"
]


class InvalidRecipe(PermanentError):
    """The recipe cannot be used; the message names the field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FineTuning(_Part):
    """How the network is fine-tuned."""

    backbone: Architecture
    side: int = Field(ge=64, le=512, multiple_of=32)
    """Rows and columns of the input; whole cells of a feature map of stride 32."""
    channels: Literal[1, 3] = 1
    """1: pictures are read in gray; 3: in color."""
    epochs: int = Field(ge=1)
    """At most; see ``patience``."""
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    """The peak, reached over the first tenth of all steps."""
    label_smoothing: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """``sgd`` is with Nesterov's momentum of 0.9. Weight decay is decoupled in all three."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after its peak: to zero at the last step, or not at all."""
    augmentation: Literal["none", "radiograph", "any_orientation"] = "radiograph"
    """``any_orientation`` is for pictures that have no up and no right, such as of skin."""
    class_balance: float = Field(default=1.0, ge=0, le=1)
    """1: every class counts the same, however rare; 0: every picture does."""
    balance_by: Literal["loss", "sampling"] = "loss"
    """Rare classes weigh more in the loss, or are drawn more often."""
    patience: int | None = Field(default=None, ge=1)
    """Training ends when the validation loss has not fallen for so many epochs, and the version
    with the lowest is kept. ``None``: all epochs, and the last version."""


class Subgroup(_Part):
    """Rows that are reported apart, because the whole flatters."""

    name: str
    sources: tuple[str, ...]
    labels: tuple[str, ...] = Field(min_length=2)
    """The classes to tell apart there; others are left out of the choice."""


class Recipe(_Part):
    """A model to be, without what training will find out."""

    name: str
    version: str
    title: str
    warning: str
    """The first line of the card."""
    intended_use: str
    limits: tuple[str, ...]
    caveats: tuple[str, ...]
    """What the data cannot show; each is a point of the card."""
    applies_to: ApplicabilityRule
    reads: StudySelection = StudySelection()
    classes: tuple[ModelClass, ...]
    license: str
    data_description: str
    data_license: str
    uncertain_target: float = Field(gt=0, lt=1)
    """The threshold is the lowest at which the rest is right as often as this, out of fold."""
    fine_tuning: FineTuning
    subgroups: tuple[Subgroup, ...] = ()
    to_fill_in: tuple[str, ...] = ()
    """What nobody has said yet; the card lists it before all else."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the network's output."""
        return tuple(each.label for each in self.classes)

    @property
    def data_names(self) -> tuple[str, ...]:
        """What the data call the classes, in the same order."""
        return tuple((each.data_name or each.label).replace("_", " ") for each in self.classes)

    def with_fine_tuning(self, settings: dict[str, object]) -> "Recipe":
        """Return the same recipe with other settings of the training.

        Raises
        ------
        InvalidRecipe
            A value is none that the setting may have.
        """
        changed = self.fine_tuning.model_dump() | settings
        try:
            return self.model_copy(update={"fine_tuning": FineTuning.model_validate(changed)})
        except ValidationError as error:
            raise InvalidRecipe(faults_of(error)) from error


def load_recipe(name_or_file: str) -> Recipe:
    """Read a recipe of ours by its name, or the user's by its path.

    Raises
    ------
    InvalidRecipe
        There is none, it is not YAML, or a field is unknown, missing or wrong.
    """
    ours = RECIPES / f"{name_or_file}.yaml"
    file = ours if ours.is_file() else Path(name_or_file)
    if not file.is_file():
        known = ", ".join(sorted(each.stem for each in RECIPES.glob("*.yaml")))
        raise InvalidRecipe(f"no recipe {name_or_file}: neither a file nor one of {known}")
    try:
        return Recipe.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise InvalidRecipe(f"{file.name}: not YAML") from error
    except ValidationError as error:
        raise InvalidRecipe(f"{file.name}: {faults_of(error)}") from error


def faults_of(error: ValidationError) -> str:
    """Return every fault with the name of its field, never with its value."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'recipe'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False)
    )
