"""The figures of a training as pictures: curves, confusion, reliability. Matplotlib only here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from inference_worker.classification_metrics import CALIBRATION_BINS, confidence_bins
from model_training.checkpoint import Epoch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
DPI = 110
MEASURED, IDEAL = "#1f5fa8", "#888888"
DARK = 0.55
"""Share of a row from which on the number on it is white."""


def draw_curves(history: Sequence[Epoch], kept: int, file: Path) -> None:
    """Draw the losses and the accuracy on the validation rows over the epochs."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    losses, right = figure.subplots(1, 2)
    epochs = [each.number for each in history]
    losses.plot(epochs, [each.loss for each in history], color=IDEAL, label="training")
    validated = [each for each in history if each.validation_loss is not None]
    if validated:
        numbers = [each.number for each in validated]
        losses.plot(
            numbers,
            [each.validation_loss for each in validated],
            color=MEASURED,
            marker="o",
            label="validation",
        )
        right.plot(
            numbers, [each.validation_accuracy for each in validated], color=MEASURED, marker="o"
        )
    for axes, title in ((losses, "loss"), (right, "accuracy on the validation rows")):
        axes.axvline(kept, color="black", linewidth=0.8, linestyle=":", label="version kept")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    losses.legend()
    _save(figure, file)


def draw_confusion(figures: dict[str, Any], file: Path) -> None:
    """Draw the confusion as shares of each true class, with the counts written in."""
    labels = figures["confusion"]["labels"]
    counts = np.array(figures["confusion"]["counts"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.8 * len(labels) + 2.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        color = "white" if shares[row, column] > DARK else "black"
        words = f"{counts[row, column]}\n{shares[row, column]:.0%}"
        axes.text(column, row, words, ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("class with the highest probability")
    axes.set_ylabel("true class")
    _save(figure, file)


def draw_reliability(
    labels: IntArray, probabilities: FloatArray, figures: dict[str, Any], file: Path
) -> None:
    """Draw how often each confidence was right (Guo et al., ICML 2017, figure 1)."""
    confidence = probabilities.max(axis=1)
    bins = confidence_bins(confidence)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    right = np.bincount(bins, probabilities.argmax(axis=1) == labels, minlength=CALIBRATION_BINS)
    held = counts > 0
    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    centers = (np.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS
    upper.plot((0, 1), (0, 1), color=IDEAL, linestyle="--", label="perfectly calibrated")
    upper.bar(
        centers[held],
        right[held] / counts[held],
        width=0.9 / CALIBRATION_BINS,
        color=MEASURED,
        label="this model",
    )
    upper.set_ylabel("share that was right")
    upper.set_title(
        f"calibration error {figures['expected_calibration_error']:.3f}"
        f" (chance allows {figures['calibrated_ece_limit']:.3f})",
        fontsize=10,
    )
    upper.legend(loc="upper left")
    lower.bar(centers, counts, width=0.9 / CALIBRATION_BINS, color=IDEAL)
    lower.set_ylabel("pictures")
    lower.set_xlabel("confidence")
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=DPI, metadata={"Software": None})
