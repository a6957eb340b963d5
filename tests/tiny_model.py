"""A real model folder in about a second: a small network trained on drawn pictures.

It has the chest model's name for its classes and its rule, so that a worker under test starts fast
and does everything that it does with the real one. Its four classes are four textures; it knows
nothing about chests.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference_worker.model_folder import sha256_of, write_description
from message_contracts.identifiers import derived_uid
from message_contracts.model_description import ModelDescription

SIDE = 32
TINY_NAME = "tiny-chest"
LABELS = ("COVID-19", "Normal", "Bacterial pneumonia", "Viral pneumonia")

DESCRIPTION = {
    "name": TINY_NAME,
    "version": "1.0.0",
    "intended_use": "Tests of the software.",
    "limits": ["It was trained on drawn textures and knows nothing about chests."],
    "applies_to": {
        "modality": {"values": ["DX", "CR"], "absent": "refuse"},
        "body_part_examined": {"values": ["CHEST", "THORAX"], "absent": "match"},
        "view_position": {"values": ["PA", "AP"], "absent": "match"},
        "sop_class_uid": [
            "1.2.840.10008.5.1.4.1.1.1",
            "1.2.840.10008.5.1.4.1.1.1.1",
            "1.2.840.10008.5.1.4.1.1.7",
        ],
        "refused_image_types": [["DERIVED", "SECONDARY"]],
    },
    "input": {"rows": SIDE, "columns": SIDE, "channels": 1, "multiply": 1 / 255, "add": 0.0},
    "classes": [
        {
            "label": "COVID-19",
            "code": {"value": "840539006", "scheme_designator": "SCT", "meaning": "COVID-19"},
            "description": "A bright disk.",
        },
        {
            "label": "Normal",
            "code": {"value": "17621005", "scheme_designator": "SCT", "meaning": "Normal"},
            "description": "Noise alone.",
            "no_abnormality": True,
        },
        {
            "label": "Bacterial pneumonia",
            "code": {
                "value": "53084003",
                "scheme_designator": "SCT",
                "meaning": "Bacterial pneumonia",
            },
            "description": "Upright stripes.",
        },
        {
            "label": "Viral pneumonia",
            "code": {"value": "75570004", "scheme_designator": "SCT", "meaning": "Viral pneumonia"},
            "description": "Level stripes.",
        },
    ],
    "uncertain_below": 0.3,
    "grad_cam_layer": "features",
    "license": "Apache-2.0",
    "training_data": {
        "description": "Textures drawn with a fixed seed.",
        "license": "Apache-2.0",
        "picture_count": 256,
    },
    "metrics": {"accuracy": 1.0},
    "weights": "weights.keras",
}


def drawn_pictures(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw ``[count, SIDE, SIDE]`` pictures and the class of each, in the order of ``LABELS``."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(LABELS)
    row, column = np.mgrid[:SIDE, :SIDE]
    pictures = random.normal(90, 12, (count, SIDE, SIDE))
    for index, label in enumerate(labels):
        center = random.integers(10, SIDE - 10, size=2)
        disk = (row - center[0]) ** 2 + (column - center[1]) ** 2 < 49
        pictures[index] += 110 * (disk if label == 0 else 0)
        pictures[index] += 60 * ((column // 3) % 2 if label == 2 else 0)
        pictures[index] += 60 * ((row // 3) % 2 if label == 3 else 0)
    return np.clip(pictures, 0, 255).astype(np.uint8), labels


def make_tiny_model(path: Path) -> Path:
    """Train the network and write a valid model folder at ``path``, which is returned."""
    import keras  # noqa: PLC0415 -- TensorFlow only where a test really makes a model

    keras.utils.set_random_seed(7)
    network = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            keras.layers.Conv2D(8, 5, strides=2, padding="same", activation="relu"),
            keras.layers.Conv2D(
                16, 3, strides=2, padding="same", activation="relu", name="features"
            ),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(len(LABELS), activation="softmax"),
        ]
    )
    pictures, labels = drawn_pictures(256, seed=7)
    network.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", jit_compile=False
    )
    network.fit(pictures[..., np.newaxis] / 255, labels, batch_size=32, epochs=12, verbose=0)
    path.mkdir(parents=True, exist_ok=True)
    weights = path / "weights.keras"
    network.save(weights)
    digest = sha256_of(weights)
    described = DESCRIPTION | {
        "weights_sha256": digest,
        "device_uid": derived_uid("model", TINY_NAME, digest),
    }
    write_description(ModelDescription.model_validate(described), path)
    return path
