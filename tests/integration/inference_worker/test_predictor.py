"""The network at work, with the tiny model and with networks that do not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from inference_worker.evaluate import evaluate
from inference_worker.labeled_pictures import InvalidManifest
from inference_worker.model_folder import (
    InvalidModelFolder,
    load_model_folder,
    sha256_of,
    write_description,
)
from inference_worker.prediction import NO_NUMBER
from inference_worker.predictor import Predictor
from message_contracts.model_description import ModelDescription
from tests.tiny_model import LABELS, SIDE, drawn_pictures, make_tiny_model

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-chest")


@pytest.fixture(scope="module")
def predictor(tiny: Path) -> Predictor:
    return Predictor(load_model_folder(tiny))


def test_the_tiny_model_has_learned_its_textures(predictor: Predictor) -> None:
    pictures, labels = drawn_pictures(64, seed=99)

    chosen = [np.argmax(each.probabilities) for each in predictor.predict(pictures)]

    assert np.mean(chosen == labels) > 0.95


def test_probabilities_are_one_per_class_and_sum_to_one(predictor: Predictor) -> None:
    pictures, _ = drawn_pictures(5, seed=1)

    for prediction in predictor.predict(pictures):
        assert len(prediction.probabilities) == len(LABELS)
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-12)


def test_a_picture_is_judged_alike_alone_and_in_a_batch(predictor: Predictor) -> None:
    pictures, _ = drawn_pictures(9, seed=2)

    together = predictor.predict(pictures)
    alone = [predictor.predict(pictures[i : i + 1])[0] for i in range(9)]

    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        np.testing.assert_allclose(one.cam, other.cam, atol=1e-4)


def test_the_same_batch_gives_the_same_answer_to_the_last_bit(predictor: Predictor) -> None:
    pictures, _ = drawn_pictures(4, seed=3)

    first, second = predictor.predict(pictures), predictor.predict(pictures)

    for one, other in zip(first, second, strict=True):
        assert one.probabilities == other.probabilities
        assert (one.cam == other.cam).all()


def test_classify_alone_says_the_same(predictor: Predictor) -> None:
    pictures, _ = drawn_pictures(6, seed=4)

    explained = [each.probabilities for each in predictor.predict(pictures)]

    np.testing.assert_allclose(predictor.classify(pictures), explained, atol=1e-6)


def test_the_map_is_brightest_where_the_disk_is(predictor: Predictor) -> None:
    row, column = np.mgrid[:SIDE, :SIDE]
    places = [(9, 9), (9, 22), (22, 9), (22, 22)]
    pictures = np.full((4, SIDE, SIDE), 90, dtype=np.uint8)
    for picture, (down, right) in zip(pictures, places, strict=True):
        picture[(row - down) ** 2 + (column - right) ** 2 < 49] = 200

    predictions = predictor.predict(pictures)

    for quadrant, prediction in enumerate(predictions):
        assert np.argmax(prediction.probabilities) == LABELS.index("COVID-19")
        by_quadrant = prediction.cam.reshape(2, 4, 2, 4).sum(axis=(1, 3))
        assert by_quadrant.argmax() == quadrant


def test_the_map_is_that_of_the_paper(tiny: Path, predictor: Predictor) -> None:
    """Grad-CAM by its definition, differentiating the whole network without any cutting."""
    pictures, _ = drawn_pictures(4, seed=5)
    network = keras.saving.load_model(tiny / "weights.keras")
    network.layers[-1].activation = keras.activations.linear
    values = tf.constant(pictures[..., np.newaxis] / 255, tf.float32)
    with tf.GradientTape() as tape:
        flowing = values
        for layer in network.layers:
            flowing = layer(flowing)
            if layer.name == "features":
                features = flowing
                tape.watch(features)
        score = tf.reduce_max(flowing, axis=1)
    weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
    expected = np.maximum(tf.reduce_sum(weights * features, axis=-1).numpy(), 0)
    expected /= expected.max(axis=(1, 2), keepdims=True)

    found = np.stack([each.cam for each in predictor.predict(pictures)])

    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_class_is_explained_by_one_graph_for_batches_of_every_size(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced, tape = [], tf.GradientTape

    def counted() -> Any:
        traced.append(1)
        return tape()

    predictor = Predictor(load_model_folder(tiny))
    monkeypatch.setattr(tf, "GradientTape", counted)
    pictures, _ = drawn_pictures(3, seed=6)

    for count in (1, 2, 3):
        found = predictor.explain(pictures[:count], 0)
        predictor.explain(pictures[:count], 1)

    assert len(found) == 3
    assert len(traced) == 1


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, SIDE, SIDE), dtype=np.float32),
        np.zeros((1, SIDE, SIDE + 1), dtype=np.uint8),
        np.zeros((SIDE, SIDE), dtype=np.uint8),
        np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8),
    ],
)
def test_a_batch_of_another_shape_is_refused(predictor: Predictor, batch: np.ndarray) -> None:
    with pytest.raises(ValueError, match="8-bit"):
        predictor.predict(batch)


def redescribed(tiny: Path, copy: Path, **changes: Any) -> Path:
    """Copy the tiny model and change its description, still consistent with its weights file."""
    shutil.copytree(tiny, copy)
    description = load_model_folder(tiny).description.model_dump(mode="json")
    digest = sha256_of(copy / "weights.keras")
    changed = description | {"weights_sha256": digest} | changes
    write_description(ModelDescription.model_validate(changed), copy)
    return copy


def test_an_absent_grad_cam_layer_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = load_model_folder(redescribed(tiny, tmp_path / "m", grad_cam_layer="out_relu"))

    with pytest.raises(InvalidModelFolder, match="grad_cam_layer: the network has no layer"):
        Predictor(folder)


def test_another_input_than_described_is_named(tiny: Path, tmp_path: Path) -> None:
    network_input = {"rows": 64, "columns": 64, "channels": 1, "multiply": 1, "add": 0}
    folder = load_model_folder(redescribed(tiny, tmp_path / "m", input=network_input))

    with pytest.raises(InvalidModelFolder, match="input: the network takes"):
        Predictor(folder)


def test_another_number_of_classes_is_named(tiny: Path, tmp_path: Path) -> None:
    classes = load_model_folder(tiny).description.model_dump(mode="json")["classes"][:3]
    folder = load_model_folder(redescribed(tiny, tmp_path / "m", classes=classes))

    with pytest.raises(InvalidModelFolder, match="classes: the network has 4 outputs, not 3"):
        Predictor(folder)


def test_weights_that_are_no_keras_archive_are_refused(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m"
    shutil.copytree(tiny, copy)
    (copy / "weights.keras").write_bytes(b"not an archive")
    description = load_model_folder(tiny).description
    digest = sha256_of(copy / "weights.keras")
    write_description(description.model_copy(update={"weights_sha256": digest}), copy)

    with pytest.raises(InvalidModelFolder, match="cannot be loaded"):
        Predictor(load_model_folder(copy))


def saved(network: Any, tiny: Path, copy: Path, **changes: Any) -> Path:
    copy.mkdir()
    network.save(copy / "weights.keras")
    description = load_model_folder(tiny).description.model_dump(mode="json")
    digest = sha256_of(copy / "weights.keras")
    changed = description | {"weights_sha256": digest} | changes
    write_description(ModelDescription.model_validate(changed), copy)
    return copy


def a_network(end: Callable[[Any], Any], channels: int = 1) -> Any:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIDE, SIDE, channels))
    features = keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="features")(inputs)
    return keras.Model(inputs, end(keras.layers.GlobalAveragePooling2D()(features)))


@pytest.mark.parametrize(
    "end",
    [
        keras.layers.Dense(4, activation="softmax"),
        lambda pooled: keras.layers.Softmax()(keras.layers.Dense(4)(pooled)),
        lambda pooled: keras.layers.Activation("softmax")(keras.layers.Dense(4)(pooled)),
    ],
)
def test_every_way_to_end_with_a_softmax_gives_the_networks_own_probabilities(
    tiny: Path, tmp_path: Path, end: Callable[[Any], Any]
) -> None:
    network = a_network(end)
    pictures, _ = drawn_pictures(3, seed=6)
    expected = network(pictures[..., np.newaxis].astype(np.float32) / 255).numpy()

    predictor = Predictor(load_model_folder(saved(network, tiny, tmp_path / "m")))

    np.testing.assert_allclose(predictor.classify(pictures), expected, atol=1e-6)
    assert all(each.cam.shape == (8, 8) for each in predictor.predict(pictures))


def test_a_calibration_in_the_network_leaves_the_heat_map_of_a_class_as_it_was(
    tiny: Path, tmp_path: Path
) -> None:
    scores, offsets = keras.layers.Dense(4), [2.0, -1.0, 0.5, -1.5]
    plain = a_network(lambda pooled: keras.layers.Softmax()(scores(pooled)))
    calibrated = keras.Model(
        plain.input,
        keras.layers.Softmax()(keras.layers.Rescaling(0.5, offsets)(plain.layers[-1].input)),
    )
    pictures, _ = drawn_pictures(3, seed=6)
    before = Predictor(load_model_folder(saved(plain, tiny, tmp_path / "before")))

    after = Predictor(load_model_folder(saved(calibrated, tiny, tmp_path / "after")))

    expected = np.sqrt(before.classify(pictures)) * np.exp(offsets)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after.classify(pictures), expected, atol=1e-6)
    for place in range(4):
        maps = zip(before.explain(pictures, place), after.explain(pictures, place), strict=True)
        for old, new in maps:
            np.testing.assert_allclose(new.cam, old.cam, atol=1e-5)
    for each in after.predict(pictures):
        assert each.cam.shape == (8, 8)


def test_a_network_without_softmax_is_refused(tiny: Path, tmp_path: Path) -> None:
    network = a_network(keras.layers.Dense(4, activation="sigmoid"))

    with pytest.raises(InvalidModelFolder, match="must end with a softmax"):
        Predictor(load_model_folder(saved(network, tiny, tmp_path / "m")))


def test_a_layer_that_the_output_bypasses_is_refused(tiny: Path, tmp_path: Path) -> None:
    inputs = keras.Input((SIDE, SIDE, 1))
    features = keras.layers.Conv2D(4, 3, name="features")(inputs)
    both = [
        keras.layers.GlobalAveragePooling2D()(features),
        keras.layers.GlobalMaxPooling2D()(inputs),
    ]
    joined = keras.layers.Concatenate()(both)
    network = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(joined))

    with pytest.raises(InvalidModelFolder, match="bypassed"):
        Predictor(load_model_folder(saved(network, tiny, tmp_path / "m")))


def test_three_channels_take_gray_and_color_alike(tiny: Path, tmp_path: Path) -> None:
    network = a_network(keras.layers.Dense(4, activation="softmax"), 3)
    network_input = {"rows": SIDE, "columns": SIDE, "channels": 3, "multiply": 1 / 255, "add": 0}
    folder = load_model_folder(saved(network, tiny, tmp_path / "m", input=network_input))
    pictures, _ = drawn_pictures(3, seed=8)
    colored = np.repeat(pictures[..., np.newaxis], 3, axis=-1)

    predictor = Predictor(folder)

    np.testing.assert_allclose(predictor.classify(pictures), predictor.classify(colored), atol=1e-6)


def test_a_picture_that_the_network_has_no_number_for_is_refused(
    tiny: Path, tmp_path: Path
) -> None:
    network = a_network(keras.layers.Dense(4, activation="softmax"))
    network.layers[-1].set_weights([np.full((4, 4), 3e38), np.zeros(4)])
    network_input = {"rows": SIDE, "columns": SIDE, "channels": 1, "multiply": 1, "add": 0}
    folder = load_model_folder(saved(network, tiny, tmp_path / "m", input=network_input))
    pictures, _ = drawn_pictures(3, seed=9)
    pictures[1] = 0

    predictor = Predictor(folder)
    overflown, black, also_overflown = predictor.predict(pictures)

    assert predictor.assess(pictures)[1] == (NO_NUMBER, None, NO_NUMBER)
    assert black.refusal is None
    assert black.probabilities == pytest.approx([0.25] * 4)
    for each in (overflown, also_overflown):
        assert np.isnan(each.probabilities).any()
        assert each.refusal == NO_NUMBER


def labeled_folder(path: Path) -> Path:
    pictures, labels = drawn_pictures(24, seed=11)
    lines = ["file,class,group_id"]
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        cv2.imwrite(str(path / f"{number}.png"), picture)
        lines.append(f"{number}.png,{LABELS[label].replace(' ', '_')},patient-{number // 2}")
    (path / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_model_is_measured_on_a_folder_of_labeled_pictures(tiny: Path, tmp_path: Path) -> None:
    found = evaluate(load_model_folder(tiny), labeled_folder(tmp_path))

    assert json.loads(json.dumps(found)) == found
    assert found["n"] == 24
    assert found["groups"] == 12
    assert found["accuracy"]["estimate"] > 0.9
    assert found["accuracy"]["lower"] <= found["accuracy"]["estimate"]
    assert [each["label"] for each in found["classes"]] == list(LABELS)
    assert sum(map(sum, found["confusion"]["counts"])) == 24


def test_a_class_that_the_model_has_not_is_named(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("file,class\na.png,Lung_cancer\n", encoding="utf-8")

    with pytest.raises(InvalidManifest, match="Lung cancer is none of"):
        evaluate(load_model_folder(tiny), tmp_path)
