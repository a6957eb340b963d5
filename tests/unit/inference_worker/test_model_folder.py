from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_worker.model_folder import (
    InvalidModelFolder,
    find_model_folders,
    load_model_folder,
    sha256_of,
    write_description,
)
from message_contracts.model_description import ModelDescription
from tests.tiny_model import DESCRIPTION


def write_folder(path: Path, **changes: Any) -> Path:
    path.mkdir(parents=True)
    weights = path / "weights.keras"
    weights.write_bytes(b"weights of " + path.name.encode())
    fields = DESCRIPTION | {"weights_sha256": sha256_of(weights), "device_uid": "2.25.1"} | changes
    (path / "model.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


def test_a_valid_folder_is_loaded(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "tiny")

    folder = load_model_folder(path)

    assert folder.description.name == "tiny-chest"
    assert folder.weights_path == path / "weights.keras"
    assert folder.weights_sha256 == folder.description.weights_sha256


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "tiny", grad_cam_leyer="features")

    with pytest.raises(InvalidModelFolder, match=r"tiny: model\.yaml: grad_cam_leyer: "):
        load_model_folder(path)


def test_a_nested_unknown_field_is_named_with_its_place(tmp_path: Path) -> None:
    network_input = dict(DESCRIPTION["input"]) | {"depth": 3}  # type: ignore[call-overload]
    path = write_folder(tmp_path / "tiny", input=network_input)

    with pytest.raises(InvalidModelFolder, match=r"input\.depth: "):
        load_model_folder(path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "tiny")
    (path / "weights.keras").unlink()

    with pytest.raises(InvalidModelFolder, match=r"weights: there is no file weights\.keras"):
        load_model_folder(path)


def test_other_weights_than_those_described_are_refused(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "tiny")
    (path / "weights.keras").write_bytes(b"others")

    with pytest.raises(InvalidModelFolder, match="weights_sha256: "):
        load_model_folder(path)


def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "tiny")
    (path / "weights.keras").unlink()
    # Of a disk that fails: there is a file, and reading it is an error.
    (path / "weights.keras").symlink_to("/proc/self/mem")

    with pytest.raises(InvalidModelFolder, match=r"tiny: weights: weights\.keras cannot be read"):
        load_model_folder(path)


@pytest.mark.parametrize(
    "content",
    ["name: [", "just words", "", "\ufffe\x00", "name: 2026-13-45", "name: 0x_", "[" * 5000],
    ids=["open", "words", "empty", "no text", "no day", "no number", "deep"],
)
def test_a_description_that_is_no_yaml_of_fields_is_refused(tmp_path: Path, content: str) -> None:
    path = write_folder(tmp_path / "tiny")
    (path / "model.yaml").write_text(content, encoding="utf-8")

    with pytest.raises(InvalidModelFolder, match=r"tiny: model\.yaml"):
        load_model_folder(path)


def test_a_folder_without_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelFolder, match=r"model\.yaml cannot be read"):
        load_model_folder(tmp_path)


def test_yaml_that_would_make_objects_makes_none(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "tiny")
    marker = tmp_path / "touched"
    (path / "model.yaml").write_text(
        f"name: !!python/object/apply:os.mkdir [{marker}]", encoding="utf-8"
    )

    with pytest.raises(InvalidModelFolder):
        load_model_folder(path)

    assert not marker.exists()


def test_good_folders_are_found_beside_the_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b", name="other")
    write_folder(tmp_path / "broken", version="x")
    write_folder(tmp_path / "twin")
    (tmp_path / "notes").mkdir()

    good, refused = find_model_folders(tmp_path)

    assert [folder.path.name for folder in good] == ["a", "b"]
    assert [each.path.name for each in refused] == ["broken", "twin"]
    assert "version" in refused[0].reason
    assert "name and version are those of a" in refused[1].reason


def test_a_root_that_is_not_there_holds_no_models(tmp_path: Path) -> None:
    assert find_model_folders(tmp_path / "absent") == ((), ())


def test_a_written_description_is_read_again(tmp_path: Path) -> None:
    folder = load_model_folder(write_folder(tmp_path / "tiny"))

    write_description(folder.description, folder.path)

    again: ModelDescription = load_model_folder(folder.path).description
    assert again == folder.description
