"""The pictures to learn from: chosen by license and split, decoded once."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference_worker.evaluate import label_numbers
from inference_worker.labeled_pictures import LabeledPicture, read_manifest, read_picture_batch
from inference_worker.preprocessing import Picture

IntArray = npt.NDArray[np.int64]
TRAIN_SPLIT = "train"


@dataclass(frozen=True)
class DataSet:
    """Rows of a manifest with their pictures, all of one geometry."""

    rows: tuple[LabeledPicture, ...]
    pictures: Picture
    """``[n, side, side]``."""
    labels: IntArray

    @property
    def groups(self) -> npt.NDArray[np.str_]:
        """The group of every row."""
        return np.array([row.group_id for row in self.rows])

    @property
    def sources(self) -> npt.NDArray[np.str_]:
        """The source of every row."""
        return np.array([row.source for row in self.rows])


def is_excluded(licence: str, excluded: str | None) -> bool:
    """Tell whether a license has the excluded term, such as ``NC``, among its words."""
    return bool(excluded) and excluded in re.split(r"[^A-Za-z0-9]+", licence)


def chosen_rows(
    data_dir: Path, exclude_licence: str | None
) -> tuple[tuple[LabeledPicture, ...], tuple[LabeledPicture, ...]]:
    """Return the rows of the train split that may be learned from, and those left out.

    A manifest without splits is a train split as a whole. Raises as ``read_manifest``.
    """
    rows = [row for row in read_manifest(data_dir) if row.split in {TRAIN_SPLIT, ""}]
    kept = tuple(row for row in rows if not is_excluded(row.licence, exclude_licence))
    left_out = tuple(row for row in rows if is_excluded(row.licence, exclude_licence))
    return kept, left_out


def load(rows: tuple[LabeledPicture, ...], labels: tuple[str, ...], side: int) -> DataSet:
    """Decode rows to gray pictures of the network's geometry; raises as ``read_picture``."""
    numbers = label_numbers(rows, labels)
    return DataSet(rows, read_picture_batch(rows, (side, side, 1)), numbers)
