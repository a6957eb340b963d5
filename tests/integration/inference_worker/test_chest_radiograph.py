"""What the chest model alone has to say and to refuse."""

from pathlib import Path

import pytest

from inference_worker.model_folder import ModelFolder, load_model_folder
from message_contracts.applicability import InstanceAttributes

FOLDER = Path(__file__).parents[3] / "models" / "chest-radiograph"


@pytest.fixture(scope="module")
def folder() -> ModelFolder:
    return load_model_folder(FOLDER)


@pytest.fixture(scope="module")
def card() -> str:
    return (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_it_reads_a_frontal_chest_radiograph_and_no_lateral_one(folder: ModelFolder) -> None:
    frontal = InstanceAttributes(
        modality="DX",
        body_part_examined=None,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        view_position=None,
    )
    lateral = frontal.model_copy(update={"view_position": "LL"})

    assert folder.description.applies_to.mismatches(frontal) == ()
    assert folder.description.applies_to.mismatches(lateral)


def test_the_first_line_of_the_card_says_that_class_and_hospital_are_confounded(card: str) -> None:
    assert "confounded" in card.splitlines()[0]


@pytest.mark.parametrize(
    "said",
    [
        "Class and source are confounded",
        "96 % of the bacterial and 99 % of the viral",
        "0.83",
        "thumbnail alone gave 0.75",
        "the source could be told with 0.97",
        "overstates diagnostic skill",
        "(Normal/Bacterial/Viral) 0.82",
        "(COVID-19 against Normal) 0.95",
        "Adult viral (5 images of the full set) and adult bacterial (31)",
        "no clinical claim can be supported",
        "Kermany only",
        "Adults only",
        "difference to the 12 x 12 thumbnail",
        "difference to the linear head on frozen features",
        "Check the codes with the edition of the terminology",
    ],
)
def test_the_card_carries_every_caveat(card: str, said: str) -> None:
    assert said in card


def test_the_card_says_that_pixels_of_a_lateral_view_were_not_tested(card: str) -> None:
    assert "Whether the pixels of a lateral view alone would be refused was not tested." in card
