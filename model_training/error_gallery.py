"""The nine worst errors, each beside its heat map: where a person begins to doubt a model.

It shows pictures of the data set, which may be anybody's: it belongs to the work folder and never
to a model folder that is passed on.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference_worker.heatmap import Legend, draw_heatmap
from inference_worker.labeled_pictures import read_picture
from inference_worker.model_folder import ModelFolder
from inference_worker.predictor import Predictor
from inference_worker.preprocessing import Picture
from model_training.data_set import DataSet

FloatArray = npt.NDArray[np.float64]
ERRORS = "worst_errors.png"
COUNT = 9
COLUMNS = 3
TILE = (496, 420)
"""Rows and columns of one picture of the gallery."""


def worst_errors(data: DataSet, probabilities: FloatArray) -> npt.NDArray[np.int64]:
    """Return the rows, nine at most, in which a wrong class was held most probable."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != data.labels)
    surest = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return np.asarray(wrong[surest[:COUNT]], dtype=np.int64)


def draw_gallery(
    folder: ModelFolder, predictor: Predictor, data: DataSet, wrong: npt.NDArray[np.int64]
) -> Picture | None:
    """Draw these rows as the finished model sees them; ``None`` where there are none.

    The heat map explains the class that the finished model chooses; where rows were judged by the
    networks of a cross-validation, that can be another than the one they erred with.
    """
    if not len(wrong):
        return None
    description = folder.description
    predictions = predictor.predict(np.ascontiguousarray(data.pictures[wrong]))
    tiles = []
    for row, prediction in zip(wrong, predictions, strict=True):
        chosen = int(np.argmax(prediction.probabilities))
        legend = Legend(
            finding=f"{description.labels[chosen]}; true: {description.labels[data.labels[row]]}",
            explained_class=f"{description.labels[chosen]}",
            probability=prediction.probabilities[chosen],
            model=f"{description.name} {description.version}",
        )
        channels = 3 if data.pictures.ndim == 4 else 1  # noqa: PLR2004 -- [n, rows, columns, 3]
        source = read_picture(data.rows[row].path, channels)
        tiles.append(_fitted(draw_heatmap(source, prediction.cam, legend, prediction.grid).overlay))
    blank = np.zeros((*TILE, 3), dtype=np.uint8)
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def write_gallery(picture: Picture, file: Path) -> None:
    """Write the gallery as PNG."""
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    if not done:
        raise RuntimeError("OpenCV could not encode a PNG")
    file.write_bytes(encoded.tobytes())


def _fitted(picture: Picture) -> Picture:
    """Reduce a picture to one tile, keeping its aspect ratio, on black."""
    rows, columns = picture.shape[:2]
    factor = min(TILE[0] / rows, TILE[1] / columns)
    size = (round(columns * factor), round(rows * factor))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    tile = np.zeros((*TILE, 3), dtype=np.uint8)
    top, left = (TILE[0] - size[1]) // 2, (TILE[1] - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    return tile
