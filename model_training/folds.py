"""Folds that keep a patient on one side, with the classes in like shares."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def grouped_folds(
    labels: IntArray, groups: npt.NDArray[np.str_], fold_count: int, seed: int
) -> IntArray:
    """Return the fold of every row; rows of one group are in one fold.

    Groups are dealt out in random order, large ones first, each to the fold that lacks most of what
    the group brings.

    Raises
    ------
    ValueError
        There are fewer groups than folds.
    """
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < fold_count:
        raise ValueError(f"{len(names)} groups cannot make {fold_count} folds")
    brings = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(brings, (member, labels), 1)
    totals = np.maximum(brings.sum(axis=0), 1)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-brings[order].sum(axis=1), kind="stable")]
    held = np.zeros((fold_count, brings.shape[1]))
    fold_of = np.zeros(len(names), dtype=np.int64)
    for group in order:
        fullness = (held / totals * (brings[group] > 0)).sum(axis=1)
        fold = np.lexsort((held.sum(axis=1), fullness))[0]
        held[fold] += brings[group]
        fold_of[group] = fold
    return fold_of[member]
