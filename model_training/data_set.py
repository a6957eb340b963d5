"""The pictures of one training: chosen by license, parted by patient, decoded once."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference_worker.evaluate import label_numbers
from inference_worker.labeled_pictures import (
    InvalidManifest,
    LabeledPicture,
    read_manifest,
    read_picture_batch,
)
from inference_worker.preprocessing import Picture
from model_training.recipe import Recipe
from model_training.splitting import (
    SHARES,
    Part,
    grouped_split,
    groups_on_two_sides,
    part_of,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
TextArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class DataSet:
    """Rows with their pictures, all of one geometry."""

    rows: tuple[LabeledPicture, ...]
    pictures: Picture
    """``[n, side, side]`` gray or ``[n, side, side, 3]`` RGB."""
    labels: IntArray
    features: FloatArray | None = None
    """``[n, channels]`` of the backbone as it came; ``None`` where it came with no weights."""

    @property
    def groups(self) -> TextArray:
        """The group of every row."""
        return np.array([row.group_id for row in self.rows])

    @property
    def sources(self) -> TextArray:
        """The source of every row."""
        return np.array([row.source for row in self.rows])

    def only(self, rows: IntArray) -> "DataSet":
        """Return some of the rows."""
        chosen = tuple(self.rows[row] for row in rows)
        features = None if self.features is None else self.features[rows]
        return DataSet(chosen, self.pictures[rows], self.labels[rows], features)

    def digest(self) -> str:
        """Return the SHA-256 of pictures and labels: whatever else changes does not matter."""
        content = hashlib.sha256(np.ascontiguousarray(self.pictures).data)
        content.update(self.labels.tobytes())
        return content.hexdigest()


def is_excluded(licence: str, excluded: str | None) -> bool:
    """Tell whether a license has the excluded term, such as ``NC``, among its words."""
    return bool(excluded) and excluded in re.split(r"[^A-Za-z0-9]+", licence)


def usable_rows(
    data: Path, exclude_licence: str | None
) -> tuple[tuple[LabeledPicture, ...], tuple[LabeledPicture, ...]]:
    """Return the rows that may be learned from, validated and tested on, and those left out.

    Of what is left out for its license only the train split is returned: the rest stays unseen.
    Raises as ``read_manifest``.
    """
    rows = read_manifest(data)
    kept = tuple(row for row in rows if not is_excluded(row.licence, exclude_licence))
    left_out = tuple(
        row
        for row in rows
        if is_excluded(row.licence, exclude_licence) and _part_of(row) is Part.TRAIN
    )
    return kept, left_out


def chosen_rows(
    data: Path, exclude_licence: str | None
) -> tuple[tuple[LabeledPicture, ...], tuple[LabeledPicture, ...]]:
    """Return what ``usable_rows`` does, of the train split alone, without a split all of it."""
    kept, left_out = usable_rows(data, exclude_licence)
    return tuple(row for row in kept if _part_of(row) is Part.TRAIN), left_out


def _part_of(row: LabeledPicture) -> Part:
    try:
        return part_of(row.split)
    except ValueError as error:
        raise InvalidManifest(
            f"split: {row.split} is none of train, val and test ({row.path.name})"
        ) from error


def parts_of(
    rows: tuple[LabeledPicture, ...], names: tuple[str, ...], seed: int
) -> tuple[TextArray, bool]:
    """Return the part of every row, and whether the data said it.

    Data that say no split are split 70/15/15 by group. Data that have a train and a test part, but
    nothing to validate on, give up 15 of 85 groups of their train part for it.

    Raises
    ------
    InvalidManifest
        A split is unknown, nothing is to be learned from, a group is on two sides, or there are too
        few groups.
    """
    labels = label_numbers(rows, names)
    groups = np.array([row.group_id for row in rows])
    try:
        if not any(row.split for row in rows):
            return grouped_split(labels, groups, seed), False
        parts = np.array([str(_part_of(row)) for row in rows])
        learned = parts == Part.TRAIN
        if not learned.any():
            raise InvalidManifest("split: no row is train; there is nothing to learn from")
        if Part.VALIDATION not in parts:
            shares = {part: SHARES[part] for part in (Part.TRAIN, Part.VALIDATION)}
            parts[learned] = grouped_split(labels[learned], groups[learned], seed, shares)
    except ValueError as error:
        raise InvalidManifest(f"too few patients or groups: {error}") from error
    leaked = groups_on_two_sides(parts, groups)
    if leaked:
        raise InvalidManifest(
            f"split: {len(leaked)} groups have pictures in more than one part;"
            " put all pictures of a patient on one side"
        )
    return parts, True


def load(rows: tuple[LabeledPicture, ...], recipe: Recipe) -> DataSet:
    """Decode rows to pictures of the network's geometry; raises as ``read_picture``."""
    how = recipe.fine_tuning
    numbers = label_numbers(rows, recipe.data_names)
    return DataSet(rows, read_picture_batch(rows, (how.side, how.side, how.channels)), numbers)
