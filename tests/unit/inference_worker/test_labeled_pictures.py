from pathlib import Path

import cv2
import numpy as np
import pytest

from inference_worker.labeled_pictures import (
    InvalidManifest,
    read_manifest,
    read_picture,
    read_picture_batch,
)


def write_manifest(folder: Path, text: str) -> Path:
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return folder


def test_an_underscore_in_a_class_is_a_space(tmp_path: Path) -> None:
    write_manifest(tmp_path, "file,class,group_id\na.png,Bacterial_pneumonia,p1\n")

    (row,) = read_manifest(tmp_path)

    assert row.label == "Bacterial pneumonia"
    assert row.group_id == "p1"


def test_without_a_group_the_patient_groups_and_without_both_the_file(tmp_path: Path) -> None:
    write_manifest(tmp_path, "file,class,group_id,patient_id\na,X,,p7\nb,X,,\n")

    assert [row.group_id for row in read_manifest(tmp_path)] == ["p7", "b"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name,diagnosis\n", "column file or path and class or label missing"),
        ("file,class\na.png,\n", "line 2: file and class"),
        ("file,class\na.png,X\n../b.png,X\n", "line 3: file lies outside"),
        ("file,class\n/etc/hosts,X\n", "line 2: file lies outside"),
    ],
)
def test_a_faulty_manifest_is_refused_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    write_manifest(tmp_path, text)

    with pytest.raises(InvalidManifest, match=fault):
        read_manifest(tmp_path)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match=r"no manifest\.csv"):
        read_manifest(tmp_path)


def test_pictures_are_read_for_one_channel_or_three(tmp_path: Path) -> None:
    red = np.zeros((20, 30, 3), dtype=np.uint8)
    red[..., 2] = 255
    cv2.imwrite(str(tmp_path / "a.png"), red)
    rows = read_manifest(write_manifest(tmp_path, "file,class\na.png,X\n"))

    assert read_picture_batch(rows, (8, 9, 1)).shape == (1, 8, 9)
    assert read_picture_batch(rows, (8, 9, 3))[0, 4, 4].tolist() == [255, 0, 0]


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("words", encoding="utf-8")

    with pytest.raises(InvalidManifest, match=r"a\.png"):
        read_picture(tmp_path / "a.png", 1)


def test_a_table_with_path_and_label_is_read_from_its_own_folder(tmp_path: Path) -> None:
    table = tmp_path / "lesions.csv"
    table.write_text("image_id,path,label\n17,pictures/a.png,mel\n", encoding="utf-8")

    (row,) = read_manifest(table)

    assert row.path == tmp_path / "pictures" / "a.png"
    assert (row.label, row.group_id, row.grouped) == ("mel", "pictures/a.png", False)


def a_tree(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    return folder


def test_a_folder_for_each_class_needs_no_table(tmp_path: Path) -> None:
    a_tree(tmp_path, "Benign_nevus/a.png", "Melanoma/p7/b.JPG", "Melanoma/p7/.cache/b.png")

    rows = read_manifest(tmp_path)

    assert [row.label for row in rows] == ["Benign nevus", "Melanoma"]
    assert [row.group_id for row in rows] == ["Benign_nevus/a.png", "p7"]
    assert [row.grouped for row in rows] == [False, True]


def test_folders_above_the_classes_may_say_the_split(tmp_path: Path) -> None:
    a_tree(tmp_path, "train/X/a.png", "val/X/b.png")

    rows = read_manifest(tmp_path)

    assert [(row.split, row.label) for row in rows] == [("train", "X"), ("val", "X")]


def test_a_picture_beside_the_class_folders_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match=r"stray\.png: lies in no folder"):
        read_manifest(a_tree(tmp_path, "X/a.png", "stray.png"))
