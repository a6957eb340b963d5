import cv2
import numpy as np
import pytest

from inference_worker.cell_grid import Axis, CellGrid
from inference_worker.heatmap import (
    AI_DISCLAIMER,
    LEAST_COLUMNS,
    MOST_SIDE,
    STRONGEST_TINT,
    Legend,
    _color_scale,
    draw_heatmap,
    heatmap_png,
    source_png,
)

LEGEND = Legend("Normal", "Normal", 0.75, "tiny-chest 1.0.0")


def a_source(rows: int, columns: int) -> np.ndarray:
    return np.full((rows, columns), 100, dtype=np.uint8)


def a_cam(row: int, column: int) -> np.ndarray:
    cam = np.zeros((7, 7), dtype=np.float32)
    cam[row, column] = 1
    return cam


def test_overlay_and_source_have_the_same_size_and_the_picture_keeps_its_place() -> None:
    heatmap = draw_heatmap(a_source(600, 800), a_cam(3, 3), LEGEND)

    assert heatmap.overlay.shape == (*heatmap.source.shape, 3)
    assert heatmap.overlay.shape[1] == 800
    assert heatmap.overlay.dtype == np.uint8
    assert (heatmap.source[:600] == 100).all()
    assert heatmap.overlay[300, 400].tolist() != [100, 100, 100]
    assert heatmap.overlay[5, 5].tolist() == [100, 100, 100]


def test_where_nothing_spoke_for_the_class_nothing_is_colored() -> None:
    heatmap = draw_heatmap(a_source(600, 800), np.zeros((7, 7), dtype=np.float32), LEGEND)

    assert (heatmap.overlay[:600] == 100).all()


def test_the_capture_has_overlay_source_and_heat_map_and_the_legend() -> None:
    heatmap = draw_heatmap(a_source(600, 800), a_cam(3, 3), LEGEND)

    capture = heatmap.capture
    rows, columns = heatmap.overlay.shape[:2]
    assert capture.shape == (rows, columns + 400, 3)
    assert (capture[:rows, :columns] == heatmap.overlay).all()
    assert (capture[:300, columns:] == 100).all()
    strongest = _color_scale()[heatmap.level[300, 400]]
    assert capture[450, columns + 200].tolist() == strongest.tolist()
    assert (capture[600:, columns:].max(axis=2) > 100).sum() > 100


def test_where_the_map_is_strongest_the_source_still_shows_through() -> None:
    source = a_source(600, 800)
    source[:, ::2] = 160

    heatmap = draw_heatmap(source, np.ones((7, 7), dtype=np.float32), LEGEND)

    difference = heatmap.overlay[300, 400].astype(int) - heatmap.overlay[300, 401]
    assert difference.tolist() == pytest.approx([27, 27, 27], abs=1)


def test_pixels_that_are_not_square_are_drawn_square() -> None:
    tall = draw_heatmap(a_source(600, 800), a_cam(3, 3), LEGEND, pixel_aspect=1.5)
    wide = draw_heatmap(a_source(600, 800), a_cam(3, 3), LEGEND, pixel_aspect=0.8)

    assert tall.shown.shape == (900, 800)
    assert wide.shown.shape == (600, 1000)


def test_the_cells_are_drawn_where_they_lie() -> None:
    corner = CellGrid(Axis(0.5, 0.05), Axis(0.25, 0.05))

    level = draw_heatmap(a_source(1000, 1000), a_cam(0, 0), LEGEND, corner).level
    even = draw_heatmap(a_source(1000, 1000), a_cam(0, 0), LEGEND).level

    assert level[490, 240] == even[60, 60] != even[490, 240]


def test_a_small_source_is_enlarged_until_the_legend_can_be_read() -> None:
    heatmap = draw_heatmap(a_source(32, 64), a_cam(0, 0), LEGEND)

    assert heatmap.overlay.shape[1] == LEAST_COLUMNS


def test_a_large_source_is_reduced() -> None:
    heatmap = draw_heatmap(a_source(4096, 3000), a_cam(0, 0), LEGEND)

    assert heatmap.overlay.shape[1] == 1500
    assert (heatmap.source[:MOST_SIDE] == 100).all()
    assert heatmap.source.shape[0] < MOST_SIDE + 300


def test_a_tall_sliver_is_drawn_too() -> None:
    heatmap = draw_heatmap(a_source(5000, 3), a_cam(0, 0), LEGEND)

    assert heatmap.overlay.shape[0] > MOST_SIDE
    assert heatmap.overlay.shape[1] == LEAST_COLUMNS


def drawn_text(text: str, finding: str = "Normal") -> np.ndarray:
    legend = Legend(finding, text, 0.5, "m 1.0.0")
    return draw_heatmap(a_source(512, 512), a_cam(0, 0), legend).overlay[512:]


def test_the_disclaimer_is_in_the_pixels() -> None:
    heatmap = draw_heatmap(a_source(512, 512), a_cam(0, 0), LEGEND)

    for picture in (heatmap.overlay.max(axis=2), heatmap.source):
        first_line = picture[512 : 512 + round(512 * 0.045)]
        assert (first_line > 150).sum() > 10 * len(AI_DISCLAIMER)


def test_the_finding_and_its_probability_change_the_pixels() -> None:
    assert (drawn_text("Normal") != drawn_text("COVID-19", "COVID-19")).any()
    low = draw_heatmap(a_source(512, 512), a_cam(0, 0), Legend("A", "A", 0.1, "m"))
    high = draw_heatmap(a_source(512, 512), a_cam(0, 0), Legend("A", "A", 0.9, "m"))

    assert (high.overlay == 255).sum() > (low.overlay == 255).sum()


def test_a_label_that_is_not_ascii_is_drawn_with_question_marks() -> None:
    assert (drawn_text("Pneumonie à virus", "x") == drawn_text("Pneumonie ? virus", "x")).all()


def test_a_long_label_stays_inside_the_picture() -> None:
    strip = drawn_text("W" * 64, "W" * 64)

    assert (strip[:, -8:] == 0).all()


def a_colored_source(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@pytest.mark.parametrize("source", [a_source(600, 800), a_colored_source(600, 800)])
def test_the_pngs_hold_the_same_pixels(source: np.ndarray) -> None:
    heatmap = draw_heatmap(source, a_cam(2, 2), LEGEND)

    for png, picture in (
        (heatmap_png(heatmap), heatmap.overlay),
        (source_png(heatmap), heatmap.source),
    ):
        decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded.ndim == 3:
            decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(decoded, picture)


def test_a_source_that_is_gray_in_three_samples_is_kept_as_a_gray_png() -> None:
    gray = a_colored_source(600, 800)[..., 0]
    in_color = draw_heatmap(np.repeat(gray[..., np.newaxis], 3, axis=2), a_cam(2, 2), LEGEND)

    assert source_png(in_color) == source_png(draw_heatmap(gray, a_cam(2, 2), LEGEND))
    np.testing.assert_array_equal(in_color.capture, draw_heatmap(gray, a_cam(2, 2), LEGEND).capture)


@pytest.mark.parametrize("source", [a_source(512, 512), a_colored_source(512, 512)])
def test_every_color_is_the_share_of_the_scale_that_the_map_gives_it(source: np.ndarray) -> None:
    heatmap = draw_heatmap(source, a_cam(3, 3), LEGEND)

    share = STRONGEST_TINT * heatmap.level[..., np.newaxis] / 255
    shown = source if source.ndim == 3 else source[..., np.newaxis]
    exact = (1 - share) * shown + share * _color_scale()[heatmap.level]
    # Both halves of the sum are rounded.
    assert np.abs(heatmap.overlay[:512] - exact).max() <= 1.0
