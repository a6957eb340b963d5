"""Which rows are learned from, which choose the version, and which judge it."""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
TextArray = npt.NDArray[np.str_]


class Part(StrEnum):
    """What a row is for; the value is what a manifest's ``split`` column says."""

    TRAIN = "train"
    VALIDATION = "val"
    TEST = "test"


SHARES = {Part.TRAIN: 0.70, Part.VALIDATION: 0.15, Part.TEST: 0.15}
OTHER_NAMES = {
    "": Part.TRAIN,
    "training": Part.TRAIN,
    "valid": Part.VALIDATION,
    "validation": Part.VALIDATION,
    "dev": Part.VALIDATION,
    "testing": Part.TEST,
}


def part_of(split: str) -> Part:
    """Return the part that a manifest's ``split`` means; without one a row is learned from.

    Raises
    ------
    ValueError
        It is none of ours, nor another usual name for one.
    """
    name = split.strip().lower()
    return OTHER_NAMES[name] if name in OTHER_NAMES else Part(name)


def groups_on_two_sides(parts: TextArray, groups: TextArray) -> tuple[str, ...]:
    """Return the groups that have rows in more than one part: a leak, whoever made the split."""
    pairs = np.unique(np.column_stack([groups, parts]), axis=0)
    names, counts = np.unique(pairs[:, 0], return_counts=True)
    return tuple(str(name) for name in names[counts > 1])


def grouped_split(
    labels: IntArray, groups: TextArray, seed: int, shares: dict[Part, float] | None = None
) -> TextArray:
    """Return the part of every row; rows of one group are in one part, classes in like shares.

    Groups are dealt out in random order, large ones first, each to the part that lacks most of what
    the group brings. A class of very few groups is learned from first, then validated, then tested.

    Raises
    ------
    ValueError
        There are fewer groups than parts.
    """
    shares = shares or SHARES
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < len(shares):
        raise ValueError(f"{len(names)} groups cannot make {len(shares)} parts")
    brings = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(brings, (member, labels), 1)
    wanted = np.outer(list(shares.values()), brings.sum(axis=0))
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-brings[order].sum(axis=1), kind="stable")]
    held = np.zeros_like(wanted)
    part_of_group = np.zeros(len(names), dtype=np.int64)
    for group in order:
        classes = brings[group] > 0
        fullness = (held[:, classes] / wanted[:, classes]).mean(axis=1)
        place = int(fullness.argmin())
        held[place] += brings[group]
        part_of_group[group] = place
    return np.array([str(part) for part in shares])[part_of_group[member]]
