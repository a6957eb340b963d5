"""What the network makes of one picture. Travels between processes, so it needs no TensorFlow."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference_worker.cell_grid import CellGrid

NO_NUMBER = "The network gave no number for this picture, so the model does not judge it."
"""The refusal of a picture of which a probability or the map is not finite."""


@dataclass(frozen=True)
class Prediction:
    """What the network makes of one picture."""

    probabilities: tuple[float, ...]
    """In the order of the model's classes; their sum is 1."""
    cam: npt.NDArray[np.float32]
    """Grad-CAM of the most probable class, or of the one that was asked for, over the feature
    map's ``[rows, columns]``, 0 to 1; all zero where nothing speaks for that class."""
    refusal: str | None = None
    """Why the picture is not what the network learned from; ``None`` where it is."""
    distance: float | None = None
    """From what the network learned from; ``None`` where the model has no domain."""
    grid: CellGrid | None = None
    """Where the cells of ``cam`` lie in the picture; ``None``: they divide it evenly."""
