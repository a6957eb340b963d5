"""Choosing rows to learn from, and parting them by patient."""

from pathlib import Path

import numpy as np
import pytest

from inference_worker.labeled_pictures import InvalidManifest, read_manifest
from model_training.data_set import chosen_rows, is_excluded, parts_of, usable_rows

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize(
    ("licence", "excluded"),
    [
        ("CC BY-NC-SA", True),
        ("CC BY-NC-SA 4.0", True),
        ("NC", True),
        ("CC BY 4.0", False),
        ("NIH CXR14 (no restrictions on use; attribution to NIH CC)", False),
        ("INCLUDED", False),
        ("", False),
    ],
)
def test_a_license_is_excluded_by_a_whole_word(licence: str, *, excluded: bool) -> None:
    assert is_excluded(licence, "NC") is excluded


def test_nothing_is_excluded_unasked() -> None:
    assert not is_excluded("CC BY-NC-SA", None)


def write_manifest(folder: Path, *rows: str) -> Path:
    text = "\n".join(["file,class,group_id,licence,split", *rows])
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return folder


def test_excluded_rows_are_kept_apart_and_those_of_other_splits_stay_unseen(tmp_path: Path) -> None:
    data = write_manifest(
        tmp_path,
        "a.png,X,1,CC BY 4.0,train",
        "b.png,X,2,CC BY-NC 4.0,train",
        "c.png,X,3,CC BY 4.0,val",
        "d.png,X,4,CC BY-NC 4.0,val",
    )

    kept, left_out = usable_rows(data, "NC")
    learned, _ = chosen_rows(data, "NC")

    assert [row.path.name for row in kept] == ["a.png", "c.png"]
    assert [row.path.name for row in left_out] == ["b.png"]
    assert [row.path.name for row in learned] == ["a.png"]


def test_a_split_that_the_data_say_is_kept(tmp_path: Path) -> None:
    data = write_manifest(tmp_path, "a,X,1,,train", "b,Y,2,,val", "c,Y,3,,train", "d,X,4,,test")

    parts, given = parts_of(read_manifest(data), ("X", "Y"), seed=1)

    assert given
    assert parts.tolist() == ["train", "val", "train", "test"]


def test_without_a_split_patients_are_dealt_and_stay_whole(tmp_path: Path) -> None:
    rows = [f"{number}.png,{'XY'[number % 2]},{number // 3},," for number in range(120)]

    parts, given = parts_of(read_manifest(write_manifest(tmp_path, *rows)), ("X", "Y"), seed=1)

    assert not given
    assert {name: int(np.sum(parts == name)) for name in ("train", "val", "test")} == {
        "train": 84,
        "val": 18,
        "test": 18,
    }


def test_data_with_nothing_to_validate_on_give_some_of_their_train_part(tmp_path: Path) -> None:
    rows = [f"{number}.png,{'XY'[number % 2]},{number},,train" for number in range(85)]
    data = write_manifest(tmp_path, *rows, "t.png,X,t,,test")

    parts, given = parts_of(read_manifest(data), ("X", "Y"), seed=1)

    assert given
    assert int(np.sum(parts == "val")) == pytest.approx(15, abs=2)
    assert int(np.sum(parts == "test")) == 1


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (("a,X,1,,train", "b,Y,1,,val"), "1 groups have pictures in more than one part"),
        (("a,X,1,,train", "b,Y,2,,holdout"), "split: holdout is none of"),
        (("a,X,1,,val", "b,Y,2,,val"), "no row is train"),
        (("a,X,1,,", "b,Y,2,,"), "too few patients"),
        (("a,X,1,,", "b,Z,2,,"), "class Z"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    tmp_path: Path, rows: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(InvalidManifest, match=fault):
        parts_of(read_manifest(write_manifest(tmp_path, *rows)), ("X", "Y"), seed=1)
