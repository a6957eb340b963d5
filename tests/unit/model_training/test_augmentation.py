import numpy as np

from model_training.augmentation import augment


def a_disk(side: int) -> np.ndarray:
    row, column = np.mgrid[:side, :side]
    distance = (row - side / 3) ** 2 + (column - side / 3) ** 2
    return (200 * (distance < (side / 6) ** 2)).astype(np.uint8)[np.newaxis]


def test_shape_and_type_stay() -> None:
    found = augment(np.repeat(a_disk(64), 5, axis=0), np.random.default_rng(1))

    assert found.shape == (5, 64, 64)
    assert found.dtype == np.uint8


def test_the_picture_changes_a_little_and_is_not_lost() -> None:
    picture = np.repeat(a_disk(96), 40, axis=0)

    found = augment(picture, np.random.default_rng(2)).astype(float)

    bright = (found > 100).mean(axis=(1, 2)) / (picture > 100).mean(axis=(1, 2))
    assert bright.min() > 0.6
    assert bright.max() < 1.6
    assert len({one.tobytes() for one in found}) == 40


def test_the_same_random_state_gives_the_same_pictures() -> None:
    picture = a_disk(48)

    first = augment(picture, np.random.default_rng(7))

    assert (first == augment(picture, np.random.default_rng(7))).all()
