"""What is to be trained: a YAML file that says all of a model that no data can say."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from message_contracts.applicability import ApplicabilityRule
from message_contracts.model_description import ModelClass
from service_runtime.errors import PermanentError

RECIPES = Path(__file__).parent / "recipes"


class InvalidRecipe(PermanentError):
    """The recipe cannot be used; the message names the field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FineTuning(_Part):
    """How the network is fine-tuned."""

    backbone: Literal["mobilenet_v1", "mobilenet_v2"]
    side: int = Field(ge=64, le=512)
    """Rows and columns of the input."""
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    """The peak; it rises over the first tenth of all steps, then falls as a cosine to zero."""
    label_smoothing: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)


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
    classes: tuple[ModelClass, ...]
    license: str
    data_description: str
    data_license: str
    uncertain_target: float = Field(gt=0, lt=1)
    """The threshold is the lowest at which the rest is right as often as this, out of fold."""
    fine_tuning: FineTuning
    subgroups: tuple[Subgroup, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the network's output."""
        return tuple(each.label for each in self.classes)


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
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise InvalidRecipe(f"{file.name}: {faults}") from error
