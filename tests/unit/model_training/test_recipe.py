from pathlib import Path

import pytest
import yaml

from message_contracts.applicability import InstanceAttributes
from model_training.recipe import RECIPES, InvalidRecipe, load_recipe

NIH_RADIOGRAPH = InstanceAttributes(
    modality="DX",
    body_part_examined=None,
    sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    view_position=None,
)


def test_ours_is_found_by_its_name() -> None:
    recipe = load_recipe("chest-radiograph")

    assert recipe.labels == ("COVID-19", "Normal", "Bacterial pneumonia", "Viral pneumonia")
    assert recipe.warning.startswith("Not for clinical use")


def test_the_chest_rule_reads_what_public_sets_send_and_no_lateral_and_no_drawing() -> None:
    rule = load_recipe("chest-radiograph").applies_to

    lateral = NIH_RADIOGRAPH.model_copy(update={"view_position": "LL"})
    drawn = NIH_RADIOGRAPH.model_copy(update={"image_type": ("DERIVED", "SECONDARY")})
    assert rule.mismatches(NIH_RADIOGRAPH) == ()
    assert "View Position" in rule.mismatches(lateral)[0]
    assert "Image Type" in rule.mismatches(drawn)[0]


def test_a_recipe_of_the_users_own_is_read_from_its_file(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    text = (RECIPES / "chest-radiograph.yaml").read_text(encoding="utf-8")
    own.write_text(text.replace("name: chest-radiograph", "name: own-model"), encoding="utf-8")

    assert load_recipe(str(own)).name == "own-model"


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    fields = yaml.safe_load((RECIPES / "chest-radiograph.yaml").read_text(encoding="utf-8"))
    fields["fine_tuning"]["epoch"] = 3
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(fields), encoding="utf-8")

    with pytest.raises(InvalidRecipe, match=r"own\.yaml: fine_tuning\.epoch"):
        load_recipe(str(own))


def test_an_absent_recipe_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(InvalidRecipe, match="chest-radiograph"):
        load_recipe("brain-scan")


def test_every_recipe_of_ours_can_be_used() -> None:
    for file in RECIPES.glob("*.yaml"):
        assert load_recipe(file.stem).name == file.stem


def test_a_setting_takes_the_place_of_the_recipes_and_a_wrong_one_is_named() -> None:
    recipe = load_recipe("chest-radiograph")

    assert recipe.with_fine_tuning({"epochs": 3}).fine_tuning.epochs == 3
    with pytest.raises(InvalidRecipe, match="side"):
        recipe.with_fine_tuning({"side": 100})
