"""A folder of labeled pictures: a ``manifest.csv`` and the files that it names.

Columns ``file`` and ``class`` are needed. ``group_id`` (else ``patient_id``) says which pictures
belong together, so that no patient is on both sides of a split and intervals are drawn by patient.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from inference_worker.preprocessing import Picture, to_network_geometry
from service_runtime.errors import PermanentError


class InvalidManifest(PermanentError):
    """The folder's ``manifest.csv`` cannot be used as it is; the message names line and column."""


@dataclass(frozen=True)
class LabeledPicture:
    """One row of the manifest."""

    path: Path
    label: str
    """The class, with spaces: ``Bacterial_pneumonia`` is read as ``Bacterial pneumonia``."""
    group_id: str
    """Rows with the same group share a patient (or cannot be told apart from such)."""
    source: str
    split: str
    licence: str


def read_manifest(data_dir: Path) -> tuple[LabeledPicture, ...]:
    """Read ``manifest.csv`` of a folder, in its order.

    Raises
    ------
    InvalidManifest
        No manifest, a needed column or value is missing, or a file lies outside the folder.
    """
    manifest = data_dir / "manifest.csv"
    if not manifest.is_file():
        raise InvalidManifest(f"{data_dir}: no manifest.csv (columns file, class, group_id)")
    with manifest.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        missing = {"file", "class"} - set(reader.fieldnames or ())
        if missing:
            raise InvalidManifest(f"{manifest}: column {' and '.join(sorted(missing))} missing")
        return tuple(_picture(data_dir, row, line) for line, row in enumerate(reader, start=2))


def _picture(data_dir: Path, row: dict[str, str | None], line: int) -> LabeledPicture:
    file, folder_class = row["file"] or "", row["class"] or ""
    if not file or not folder_class:
        raise InvalidManifest(f"manifest.csv line {line}: file and class must have a value")
    path = data_dir / file
    if not path.resolve().is_relative_to(data_dir.resolve()):
        raise InvalidManifest(f"manifest.csv line {line}: file lies outside the folder")
    return LabeledPicture(
        path=path,
        label=folder_class.replace("_", " "),
        group_id=row.get("group_id") or row.get("patient_id") or file,
        source=row.get("source") or "",
        split=row.get("split") or "",
        licence=row.get("licence") or row.get("license") or "",
    )


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
