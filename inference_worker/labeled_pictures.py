"""Labeled pictures: a CSV file and the files that it names, or a folder for each class.

A table (``manifest.csv`` of a folder, or a CSV file by its own name) needs a column ``file`` (or
``path``) and a column ``class`` (or ``label``). ``group_id``, else ``patient_id``, says which
pictures belong together, so that no patient is on both sides of a split and intervals are drawn by
patient. ``image_id``, ``split``, ``source`` and ``licence`` are optional.

A folder without a table has a folder for each class: ``CLASS/picture.png``, or
``CLASS/PATIENT/picture.png``; above the classes there may be ``train``, ``val`` and ``test``.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from inference_worker.preprocessing import Picture, to_network_geometry
from service_runtime.errors import PermanentError

MANIFEST = "manifest.csv"
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
COLUMNS = {
    "file": ("file", "path"),
    "class": ("class", "label"),
    "group": ("group_id", "patient_id"),
    "source": ("source",),
    "split": ("split",),
    "licence": ("licence", "license"),
}
"""What we ask of a row, and the columns that may say it, the first that has a value."""


class InvalidManifest(PermanentError):
    """The pictures cannot be used as they are; the message names line and column, or the file."""


@dataclass(frozen=True)
class LabeledPicture:
    """One picture and what is known of it."""

    path: Path
    label: str
    """The class, with spaces: ``Bacterial_pneumonia`` is read as ``Bacterial pneumonia``."""
    group_id: str
    """Rows with the same group share a patient (or cannot be told apart from such)."""
    source: str
    split: str
    licence: str
    grouped: bool = True
    """Whether the data said the group; else every picture is a group of its own."""


def read_manifest(data: Path) -> tuple[LabeledPicture, ...]:
    """Read a CSV file, a folder's ``manifest.csv``, or a folder for each class.

    Raises
    ------
    InvalidManifest
        There is neither, a needed column or value is missing, or the ``manifest.csv`` of a folder
        names a file outside of it. A CSV file that was itself named may do so.
    """
    table = data / MANIFEST if data.is_dir() else data
    if table.is_file():
        return _read_table(table, confined=data.is_dir())
    pictures = _read_folders(data) if data.is_dir() else ()
    if not pictures:
        raise InvalidManifest(
            f"{data}: no {MANIFEST} (columns file, class, group_id), and no folder with PNG or JPEG"
            " files for each class"
        )
    return pictures


def _read_table(table: Path, *, confined: bool) -> tuple[LabeledPicture, ...]:
    with table.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        there = set(reader.fieldnames or ())
        missing = [name for name in ("file", "class") if not there.intersection(COLUMNS[name])]
        if missing:
            wanted = " and ".join(" or ".join(COLUMNS[name]) for name in missing)
            raise InvalidManifest(f"{table}: column {wanted} missing")
        rows = tuple(_row(table, row, line) for line, row in enumerate(reader, start=2))
    folder = table.parent.resolve()
    for line, row in enumerate(rows, start=2):
        if confined and not row.path.resolve().is_relative_to(folder):
            raise InvalidManifest(f"{table.name} line {line}: file lies outside the folder")
    return rows


def _row(table: Path, row: dict[str, str | None], line: int) -> LabeledPicture:
    said = {
        name: next((row[column] or "" for column in columns if row.get(column)), "")
        for name, columns in COLUMNS.items()
    }
    if not said["file"] or not said["class"]:
        raise InvalidManifest(f"{table.name} line {line}: file and class must have a value")
    return LabeledPicture(
        path=table.parent / said["file"],
        label=said["class"].replace("_", " "),
        group_id=said["group"] or said["file"],
        source=said["source"],
        split=said["split"],
        licence=said["licence"],
        grouped=bool(said["group"]),
    )


def _read_folders(data: Path) -> tuple[LabeledPicture, ...]:
    """Read ``[SPLIT/]CLASS/[PATIENT/]picture``, in the order of the names."""
    top = [each.name for each in data.iterdir() if each.is_dir()]
    split_above = bool(top) and all(name.lower() in SPLIT_FOLDERS for name in top)
    found = []
    for path in sorted(data.rglob("*")):
        if path.suffix.lower() not in PICTURE_SUFFIXES or not path.is_file():
            continue
        folders = path.relative_to(data).parts[:-1]
        if any(name.startswith(".") for name in folders):
            continue
        split, folders = (folders[0], folders[1:]) if split_above else ("", folders)
        if not folders:
            raise InvalidManifest(f"{path.name}: lies in no folder that names its class")
        patient = "/".join(folders[1:])
        found.append(
            LabeledPicture(
                path=path,
                label=folders[0].replace("_", " "),
                group_id=patient or str(path.relative_to(data)),
                source="",
                split=split,
                licence="",
                grouped=bool(patient),
            )
        )
    return tuple(found)


def read_picture(path: Path, channels: int) -> Picture:
    """Decode a PNG or JPEG file to 8-bit gray ``[rows, columns]`` or RGB ``[rows, columns, 3]``.

    Gray serves one channel and three alike; a file in color keeps its color for three channels.

    Raises
    ------
    InvalidManifest
        The file is absent or not a picture.
    """
    how = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    picture = cv2.imread(str(path), how) if path.is_file() else None
    if picture is None:
        raise InvalidManifest(f"{path.name}: no such picture, or not PNG or JPEG")
    return np.asarray(picture, dtype=np.uint8)


def read_picture_batch(
    pictures: tuple[LabeledPicture, ...], shape: tuple[int, int, int]
) -> Picture:
    """Decode pictures into the network's ``shape`` (rows, columns, channels).

    One channel gives ``[n, rows, columns]``, three give ``[n, rows, columns, 3]``.
    """
    rows, columns, channels = shape
    batch = [
        to_network_geometry(read_picture(picture.path, channels), rows, columns)
        for picture in pictures
    ]
    return np.stack(batch)
