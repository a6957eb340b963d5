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


def test_a_picture_in_color_keeps_its_colors_apart() -> None:
    red = np.zeros((6, 32, 32, 3), dtype=np.uint8)
    red[..., 0] = 200

    found = augment(red, np.random.default_rng(1), "any_orientation").astype(float)

    assert found.shape == red.shape
    assert (found[..., 0].mean(axis=(1, 2)) > found[..., 1].mean(axis=(1, 2)) + 80).all()


def test_without_up_a_picture_is_turned_as_far_as_it_goes_and_shows_no_black_corner() -> None:
    picture = np.full((64, 64, 3), 120, dtype=np.uint8)
    picture[:8] = 220
    many = np.repeat(picture[np.newaxis], 30, axis=0)

    found = augment(many, np.random.default_rng(3), "any_orientation")

    brightest_half = {int(one[..., 0].mean(axis=1).argmax()) >= 32 for one in found}
    assert brightest_half == {True, False}
    assert found.min() > 40


def test_no_augmentation_changes_nothing() -> None:
    assert (augment(a_disk(16), np.random.default_rng(1), "none") == a_disk(16)).all()
