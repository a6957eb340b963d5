"""A heat map of what is known to matter lies where that is, in the pixels of the source.

The networks are made by hand: one class is told by a bright patch alone, the other by a dark one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from pydicom import Dataset

from inference_worker.cell_grid import CellGrid
from inference_worker.decoding import KeptInstance
from inference_worker.heatmap import STRONGEST_TINT, _color_scale
from inference_worker.model_folder import load_model_folder, sha256_of, write_description
from inference_worker.predictor import Predictor
from inference_worker.preprocessing import to_network_geometry
from inference_worker.receptive_fields import cell_grid_of
from inference_worker.results import LoadedModel, Results, make_results
from inference_worker.study_reading import read_study
from message_contracts.coding import CodedConcept
from message_contracts.inference import InferenceRequested, ModelReference
from message_contracts.model_description import ModelClass, NetworkInput
from tests.readings import a_model
from tests.synthetic_images import STUDY_INSTANCE_UID, an_image, part10, read

pytestmark = pytest.mark.tensorflow

SIDE = 96
BRIGHT, DARK = 0, 1
AXIAL = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def even(flowing: Any) -> Any:
    return keras.layers.AveragePooling2D(8, name="features")(flowing)


def halving(padding: Any, last: str) -> Callable[[Any], Any]:
    """Return three layers that halve the picture, as networks do, each padded in this way."""

    def stack(flowing: Any) -> Any:
        for number in range(3):
            if padding != "valid":
                flowing = keras.layers.ZeroPadding2D((padding, padding))(flowing)
            flowing = keras.layers.DepthwiseConv2D(
                3,
                strides=2,
                use_bias=False,
                depthwise_initializer=keras.initializers.Constant(1 / 9),
                name=last if number == 2 else None,
            )(flowing)
        return flowing

    return stack


STACKS = {
    "cells that divide the picture": even,
    "padded below and to the right, as MobileNet is": halving((0, 1), "features"),
    "padded above and to the left": halving((1, 0), "features"),
    "not padded, as Inception is": halving("valid", "features"),
}


@pytest.fixture(scope="module", params=STACKS)
def predictor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    inputs = keras.Input((SIDE, SIDE, 1))
    patches = keras.layers.Conv2D(2, 1, activation="relu", name="patches")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(STACKS[request.param](patches))
    outputs = keras.layers.Dense(2, activation="softmax", name="scores")(pooled)
    network = keras.Model(inputs, outputs)
    # Above 0.6 it is bright, below 0.2 dark.
    network.get_layer("patches").set_weights(
        [np.array([1.0, -1.0]).reshape(1, 1, 1, 2), np.array([-0.6, 0.2])]
    )
    network.get_layer("scores").set_weights([20 * np.eye(2), np.zeros(2)])
    folder = tmp_path_factory.mktemp("patches") / "patches"
    folder.mkdir()
    network.save(folder / "patches.keras")
    classes = tuple(
        ModelClass(
            label=label,
            code=CodedConcept(value=label, scheme_designator="99TEST", meaning=label),
            description=label,
        )
        for label in ("Bright", "Dark")
    )
    described = a_model(
        name="patches",
        classes=classes,
        input=NetworkInput(rows=SIDE, columns=SIDE, channels=1, multiply=1 / 255, add=0),
        weights="patches.keras",
        weights_sha256=sha256_of(folder / "patches.keras"),
        uncertain_below=0,
    )
    write_description(described, folder)
    return Predictor(load_model_folder(folder))


def a_picture(rows: int, columns: int, *, bright: Any = None, dark: Any = None) -> Any:
    """Draw patches, a seventh of the picture wide and high, around places in fractions of it."""
    picture = np.full((rows, columns), 100, dtype=np.uint8)
    for place, gray in ((bright, 255), (dark, 0)):
        if place is not None:
            top, left = (place[0] - 1 / 14) * rows, (place[1] - 1 / 14) * columns
            bottom, right = top + rows / 7, left + columns / 7
            picture[round(top) : round(bottom), round(left) : round(right)] = gray
    return picture


def a_source(picture: npt.NDArray[Any], **attributes: Any) -> Dataset:
    windows = {"WindowCenter": 128, "WindowWidth": 256}
    return an_image(picture, **(windows | attributes))


def explained(predictor: Predictor, source: Dataset) -> Results:
    description = predictor._description
    instance = KeptInstance(str(source.SOPInstanceUID), lambda: part10(source))
    with ThreadPoolExecutor(1) as pool:
        study = read_study([instance], description, predictor.predict, pool)
    request = InferenceRequested(
        case_id=UUID(int=1),
        case_version=1,
        study_instance_uid=STUDY_INSTANCE_UID,
        model=ModelReference(name="patches", version="1.0.0"),
        sop_instance_uids=(str(source.SOPInstanceUID),),
    )
    model = LoadedModel(description, "5e" * 32, predictor.predict)
    return make_results(request, datetime(2026, 7, 14, tzinfo=UTC), UTC, model, study)


def place_in_capture(results: Results, source: Dataset) -> tuple[Any, Any]:
    """Return where in the source the captured heat map is strongest, and its centroid.

    Rows and columns, counted as pixel centers are: 0 is the middle of the first pixel.
    """
    heatmap = results.heatmap
    capture = read(results.captures[0].content).pixel_array
    rows, columns = heatmap.shown.shape[:2]
    level = heatmap.level.astype(int)
    share = STRONGEST_TINT * level[..., np.newaxis] / 255
    blended = (1 - share) * heatmap.shown[..., np.newaxis] + share * _color_scale()[level]
    assert np.abs(capture[:rows, :columns] - blended).max() <= 1
    scale = np.array([source.Rows / rows, source.Columns / columns])
    peak = np.mean(np.argwhere(level == level.max()), axis=0)
    weight = np.where(level > level.max() / 2, level, 0)
    centroid = [
        (weight.sum(axis=1 - axis) @ np.arange(weight.shape[axis])) / weight.sum()
        for axis in (0, 1)
    ]
    return (peak + 0.5) * scale - 0.5, (np.array(centroid) + 0.5) * scale - 0.5


def assert_it_is_there(found: tuple[Any, Any], wanted: Any, shape: tuple[int, int]) -> None:
    """Hold the peak to the patch, and the centroid to a fifth of a cell (a twelfth of a side)."""
    peak, centroid = found
    wanted, size = np.array(wanted), np.array(shape)
    assert (np.abs(peak - wanted) <= size / 14 + 0.5).all(), (peak, wanted)
    assert (np.abs(centroid - wanted) <= size / 12 / 5 + 0.5).all(), (centroid, wanted)


def pixel(place: Any, rows: int, columns: int) -> Any:
    return np.array([place[0] * rows - 0.5, place[1] * columns - 0.5])


@pytest.mark.parametrize(("rows", "columns"), [(96, 96), (120, 300), (400, 150)])
@pytest.mark.parametrize("place", [(0.3, 0.7), (0.8, 0.2)])
def test_the_heat_map_is_where_the_patch_is(
    predictor: Predictor, rows: int, columns: int, place: tuple[float, float]
) -> None:
    source = a_source(a_picture(rows, columns, bright=place, dark=None))

    found = place_in_capture(explained(predictor, source), source)

    assert_it_is_there(found, pixel(place, rows, columns), (rows, columns))


def test_what_speaks_for_another_class_is_not_in_it(predictor: Predictor) -> None:
    source = a_source(a_picture(200, 300, bright=(0.3, 0.3), dark=(0.7, 0.7)))
    small = to_network_geometry(source.pixel_array, SIDE, SIDE)[np.newaxis]

    for place, wanted in ((BRIGHT, (0.3, 0.3)), (DARK, (0.7, 0.7))):
        [prediction] = predictor.explain(small, place)
        over = (prediction.grid or CellGrid.even(12, 12)).over(prediction.cam, 200, 300)
        peak = np.unravel_index(over.argmax(), over.shape)
        assert np.abs(peak - pixel(wanted, 200, 300)).max() <= 15


def test_a_crop_moves_it_by_what_was_cut_off(predictor: Predictor) -> None:
    picture = a_picture(400, 600, bright=(0.5, 0.5))
    patch = pixel((0.5, 0.5), 400, 600)

    for top, left in ((0, 0), (100, 0), (60, 200)):
        source = a_source(np.ascontiguousarray(picture[top:, left:]))
        found = place_in_capture(explained(predictor, source), source)
        assert_it_is_there(found, patch - (top, left), (source.Rows, source.Columns))


@pytest.mark.parametrize("spacing", [(1.0, 0.5), (0.25, 0.5)])
def test_of_pixels_that_are_not_square_it_is_the_same_pixel(
    predictor: Predictor, spacing: tuple[float, float]
) -> None:
    source = a_source(a_picture(240, 240, bright=(0.3, 0.6)), PixelSpacing=list(spacing))

    results = explained(predictor, source)

    rows, columns = results.heatmap.shown.shape[:2]
    assert rows / columns == pytest.approx(spacing[0] / spacing[1], rel=0.01)
    found = place_in_capture(results, source)
    assert_it_is_there(found, pixel((0.3, 0.6), 240, 240), (240, 240))


TURNS: dict[str, tuple[Callable[[Any], Any], list[float], list[float], list[str]]] = {
    "as acquired": (lambda p: p, [1, 0, 0, 0, 1, 0], [0, 0, 0], ["L", "P"]),
    "half a turn": (lambda p: p[::-1, ::-1], [-1, 0, 0, 0, -1, 0], [299, 199, 0], ["R", "A"]),
    "a quarter": (lambda p: np.rot90(p, -1), [0, -1, 0, 1, 0, 0], [0, 199, 0], ["A", "L"]),
    "mirrored": (lambda p: p[:, ::-1], [-1, 0, 0, 0, 1, 0], [299, 0, 0], ["R", "P"]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_however_the_frame_is_turned_it_is_the_same_place_in_the_patient(
    predictor: Predictor, turn: str
) -> None:
    turned, cosines, position, letters = TURNS[turn]
    picture = a_picture(200, 300, bright=(0.25, 0.6))
    source = a_source(
        np.ascontiguousarray(turned(picture)),
        ImageOrientationPatient=cosines,
        ImagePositionPatient=position,
        PixelSpacing=[1, 1],
        FrameOfReferenceUID="2.25.8",
    )

    results = explained(predictor, source)

    _, (row, column) = place_in_capture(results, source)
    along, down = np.reshape(cosines, (2, 3))
    in_patient = np.array(position) + column * along + row * down
    in_first = pixel((0.25, 0.6), 200, 300)
    assert np.abs(in_patient - (in_first[1], in_first[0], 0)).max() <= 300 / 12 / 5 + 0.5
    assert list(read(results.captures[0].content).PatientOrientation) == letters


def test_of_a_multi_frame_source_it_is_the_frame_that_has_the_patch(predictor: Predictor) -> None:
    frames = np.stack(
        [
            a_picture(150, 200),
            a_picture(150, 200, bright=(0.6, 0.3)),
            a_picture(150, 200, dark=(0.2, 0.2)),
        ]
    )
    source = a_source(frames, frames=True)

    results = explained(predictor, source)

    assert_it_is_there(place_in_capture(results, source), pixel((0.6, 0.3), 150, 200), (150, 200))
    [reference] = read(results.captures[0].content).SourceImageSequence
    assert reference.ReferencedFrameNumber == 2


def measured_center(network: Any, side: int, cell: int) -> float:
    """Return which pixel of a row the middle of what a cell sees is, by its gradient."""
    random = np.random.default_rng(0)
    picture = tf.constant(random.uniform(-1, 1, (4, side, side, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(picture)
        features = network(picture, training=False)
        mix = random.normal(size=features.shape[-1]).astype(np.float32)
        value = tf.reduce_sum(features[:, cell, cell] * mix)
    seen = np.square(tape.gradient(value, picture).numpy()).sum(axis=(0, 1, 3))
    return float(seen @ np.arange(side) / seen.sum())


NO_TOP = {"include_top": False, "weights": None}


@pytest.mark.parametrize(
    "build",
    [
        lambda inputs: keras.applications.MobileNet(input_tensor=inputs, alpha=0.25, **NO_TOP),
        lambda inputs: keras.applications.MobileNetV2(input_tensor=inputs, alpha=0.35, **NO_TOP),
    ],
    ids=["MobileNet", "MobileNetV2"],
)
def test_cells_of_networks_as_they_come_are_where_they_are_measured(
    build: Callable[[Any], Any],
) -> None:
    keras.utils.set_random_seed(1)
    # So large that the cell is half a cell off its place, and in the middle: both margins are far.
    side, cell = 256, 3
    network = build(keras.Input((side, side, 3)))

    grid = cell_grid_of(network)

    assert grid is not None
    center = (grid.rows.first + cell * grid.rows.step) * side - 0.5
    assert center == 127
    assert measured_center(network, side, cell) == pytest.approx(center, abs=4)


def test_a_base_within_a_network_is_followed_too() -> None:
    base = keras.applications.MobileNet(input_shape=(64, 64, 3), alpha=0.25, **NO_TOP)
    inputs = keras.Input((64, 64, 3))
    whole = keras.Model(inputs, base(keras.layers.Rescaling(2.0)(inputs)))

    assert cell_grid_of(whole) == cell_grid_of(base) != None  # noqa: E711


def test_where_a_layer_is_not_known_nothing_is_said() -> None:
    inputs = keras.Input((64, 64, 3))
    unknown = keras.layers.Conv2DTranspose(4, 3, strides=2)(inputs)

    assert cell_grid_of(keras.Model(inputs, keras.layers.ReLU()(unknown))) is None
