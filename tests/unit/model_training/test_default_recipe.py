from pathlib import Path

import cv2
import numpy as np
import pytest

from inference_worker.labeled_pictures import InvalidManifest, read_manifest
from model_training.default_recipe import default_recipe, model_name


def pictures(folder: Path, *classes: str, color: bool = False) -> Path:
    for name in classes:
        (folder / name).mkdir()
        picture = np.full((16, 16, 3), 90, dtype=np.uint8)
        if color:
            picture[..., 2] = 200
        cv2.imwrite(str(folder / name / "a.png"), picture)
    return folder


def test_the_classes_are_those_of_the_data_with_codes_that_claim_nothing(tmp_path: Path) -> None:
    rows = read_manifest(pictures(tmp_path, "Normal", "Benign_mass"))

    recipe = default_recipe("Our breast model", rows, "mobilenet_v2")

    assert recipe.name == "our-breast-model"
    assert recipe.labels == ("Benign mass", "Normal")
    assert {each.code.scheme_designator for each in recipe.classes} == {"99LOCAL"}
    assert [each.no_abnormality for each in recipe.classes] == [False, True]
    assert recipe.to_fill_in


def test_pictures_in_color_are_learned_in_color(tmp_path: Path) -> None:
    (tmp_path / "gray").mkdir()
    (tmp_path / "skin").mkdir()
    gray = read_manifest(pictures(tmp_path / "gray", "A", "B"))
    skin = read_manifest(pictures(tmp_path / "skin", "A", "B", color=True))

    assert default_recipe("m", gray, "mobilenet_v2").fine_tuning.channels == 1
    assert default_recipe("m", skin, "mobilenet_v2").fine_tuning.channels == 3
    assert default_recipe("m", skin, "mobilenet_v2").fine_tuning.augmentation == "any_orientation"


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="at least two"):
        default_recipe("m", read_manifest(pictures(tmp_path, "A")), "mobilenet_v2")


@pytest.mark.parametrize(
    ("text", "name"), [("Skin of ours", "skin-of-ours"), ("__", "model"), ("x" * 80, "x" * 64)]
)
def test_a_name_becomes_one_that_a_model_may_have(text: str, name: str) -> None:
    assert model_name(text) == name
