"""The heat map that a person sees: what spoke for the class, drawn over the source.

The picture keeps the source's pixels, enlarged or reduced by one factor, and by another for the
rows where they are not square; a strip with the legend is added below, so that nothing of the
source is covered by text. The source alone is drawn at the same size, to be shown beside it.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np
import numpy.typing as npt

from inference_worker.cell_grid import CellGrid
from inference_worker.png import png_of
from inference_worker.preprocessing import Picture

AI_DISCLAIMER = "AI - not for primary diagnosis"
"""Plain ASCII, so that every font and every Specific Character Set has it."""

LEAST_COLUMNS = 512
"""Below this the legend could not be read; a smaller source is enlarged."""
MOST_SIDE = 2048
"""A larger source is reduced: the heat map has a few dozen cells, the source is kept anyway."""
LEGEND_LINES = 4
LEGEND_LINE_PER_COLUMN = 0.045
STRONGEST_TINT = 0.55
"""How much of the color covers the source where the map is 1."""
RGB_DIMENSIONS = 3
WHITE, DIM, WARNING = (255, 255, 255), (170, 170, 170), (255, 210, 60)
FONT = cv2.FONT_HERSHEY_SIMPLEX

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Legend:
    """What is written below the picture."""

    finding: str
    """The class, or ``Uncertain``."""
    explained_class: str
    """The class that the colors explain; the most probable one, unless another was asked for."""
    probability: float
    """Of the explained class, 0 to 1."""
    model: str
    """Name and version."""


@dataclass(frozen=True)
class Heatmap:
    """A source, its heat map, and one over the other; 8-bit RGB ``[rows, columns, 3]``."""

    shown: Picture
    """The source in the size in which it is drawn."""
    colors: Picture
    """The heat map alone."""
    blended: Picture
    """The heat map over the source."""
    legend: Legend

    @cached_property
    def overlay(self) -> Picture:
        """The heat map over the source, with its legend below."""
        return np.vstack([_widened(self.blended, self._width), self._legend_strip])

    @cached_property
    def source(self) -> Picture:
        """The source, of the overlay's size."""
        plain = _strip(self._width)
        # Without a color: a gray source is kept as a gray picture, a third as large.
        _write(plain, 0, AI_DISCLAIMER, WHITE)
        _write(plain, 1, "Source as the model was given it", WHITE)
        return np.vstack([_widened(self.shown, self._width), plain])

    @cached_property
    def capture(self) -> Picture:
        """The overlay with, to the right of it, source and heat map alone, half as large.

        The overlay lies at the top left, where every pixel of it is where it is in the source.
        """
        rows, width = len(self.shown), self._width
        half = -(-self.shown.shape[1] // 2)
        strip = self._legend_strip
        whole = np.zeros((rows + len(strip), width + half, 3), dtype=np.uint8)
        whole[:rows, : self.shown.shape[1]] = self.blended
        whole[rows:, :width] = strip
        for part, top, bottom in ((self.shown, 0, rows // 2), (self.colors, rows // 2, rows)):
            if bottom > top:
                size = (half, bottom - top)
                whole[top:bottom, width:] = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        aside = whole[rows:, width:]
        _write(aside, 0, "Above: the source,", DIM)
        _write(aside, 1, "and the heat map alone", DIM)
        return whole

    @cached_property
    def _legend_strip(self) -> Picture:
        return _legend_strip(self._width, self.legend)

    @property
    def _width(self) -> int:
        return max(int(self.shown.shape[1]), LEAST_COLUMNS)


def draw_heatmap(
    source: Picture,
    cam: Float32Array,
    legend: Legend,
    grid: CellGrid | None = None,
    pixel_aspect: float = 1.0,
) -> Heatmap:
    """Draw a class activation map over an 8-bit gray or RGB source, with its legend below.

    ``grid`` says where the cells of the map lie in the source; without it they divide it evenly.
    ``pixel_aspect`` is the height of a pixel of the source over its width; what is drawn has
    square ones, so that every viewer, page and report shows the patient's proportions.

    The class label, a bar and the number of its probability, the scale of the colors, the model,
    and the words of ``AI_DISCLAIMER`` become part of the pixels.
    """
    shown = _as_rgb(_at_readable_size(source, pixel_aspect))
    rows, columns = shown.shape[:2]
    strength = (grid or CellGrid.even(*cam.shape)).over(cam, rows, columns)
    level = cv2.convertScaleAbs(strength, alpha=255.0)
    colors, tints, through = (cv2.applyColorMap(level, table) for table in _color_tables())
    left = cv2.multiply(shown, through, scale=1 / 255)
    return Heatmap(
        shown=shown,
        colors=np.asarray(colors, np.uint8),
        blended=np.asarray(cv2.add(left, tints), np.uint8),
        legend=legend,
    )


def heatmap_png(heatmap: Heatmap) -> bytes:
    """Encode the overlay as PNG."""
    return png_of(heatmap.overlay)


def source_png(heatmap: Heatmap) -> bytes:
    """Encode the source, at the overlay's size, as PNG."""
    red, green, blue = cv2.split(heatmap.source)
    is_gray = np.array_equal(red, green) and np.array_equal(red, blue)
    return png_of(red if is_gray else heatmap.source)


def _at_readable_size(source: Picture, pixel_aspect: float) -> Picture:
    rows, columns = (
        source.shape[0] * max(pixel_aspect, 1.0),
        source.shape[1] / min(pixel_aspect, 1.0),
    )
    factor = max(1.0, LEAST_COLUMNS / columns)
    factor = min(factor, MOST_SIDE / max(rows, columns))
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    if size == source.shape[1::-1]:
        return source
    shrinks = size[0] <= source.shape[1] and size[1] <= source.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(source, size, interpolation=how), dtype=np.uint8)


def _widened(picture: Picture, columns: int) -> Picture:
    """Fill up with black on the right: a tall sliver is reduced until the legend is wider."""
    missing = columns - picture.shape[1]
    return np.pad(picture, ((0, 0), (0, missing), (0, 0))) if missing else picture


def _as_rgb(picture: Picture) -> Picture:
    gray_dimensions = 2
    if picture.ndim == gray_dimensions:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    return picture


@cache
def _color_tables() -> tuple[Picture, Picture, Picture]:
    """Return, for 0 to 255, the color in RGB, its share of a blend, and what it leaves of 255."""
    level = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    colors = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    tint = STRONGEST_TINT * level[..., np.newaxis] / 255
    tints = np.rint(tint * colors).astype(np.uint8)
    through = np.rint(255 * (1 - tint)).astype(np.uint8).repeat(3, axis=2)
    return np.asarray(colors, np.uint8), tints, through


def _strip(columns: int) -> Picture:
    return np.zeros((LEGEND_LINES * _line_rows(columns), columns, 3), dtype=np.uint8)


def _line_rows(columns: int) -> int:
    return max(8, round(columns * LEGEND_LINE_PER_COLUMN))


def _legend_strip(columns: int, legend: Legend) -> Picture:
    strip = _strip(columns)
    _write(strip, 0, AI_DISCLAIMER, WARNING)
    text = legend.finding
    if legend.finding != legend.explained_class:
        text = f"{legend.finding}; colors explain: {legend.explained_class}"
    _write(strip, 1, text, WHITE)
    bar = np.full(columns // 3, WHITE[0], dtype=np.uint8)
    bar[round(len(bar) * legend.probability) :] = WHITE[0] // 5
    _bar(strip, 2, np.repeat(bar[:, np.newaxis], 3, axis=1), f"{legend.probability:.1%}")
    scale = np.linspace(0, 255, columns // 3).round().astype(np.intp)
    _bar(strip, 3, _color_tables()[0][scale, 0], f"Grad-CAM 0 to 1, {legend.model}")
    return strip


def _bar(strip: Picture, line: int, colors: Picture, text: str) -> None:
    """Draw a row of colors as a bar on a line of the strip, and words to the right of it."""
    height = len(strip) // LEGEND_LINES
    left = height // 2
    top = line * height + height // 4
    strip[top : top + height // 2, left : left + len(colors)] = colors
    _write(strip, line, text, DIM, left + len(colors))


def _write(
    strip: Picture, line: int, text: str, color: tuple[int, int, int], left: int = 0
) -> None:
    """Write plain ASCII on a line of the strip, as large as the line, smaller where it is long."""
    height = len(strip) // LEGEND_LINES
    left += height // 2
    plain = text.encode("ascii", "replace").decode("ascii")
    (wide, high), _ = cv2.getTextSize(plain, FONT, 1.0, 1)
    room = strip.shape[1] - left - height // 2
    size = min(0.6 * height / high, room / max(wide, 1))
    thickness = max(1, round(1.6 * size))
    baseline = round((line + 0.78) * height)
    cv2.putText(strip, plain, (left, baseline), FONT, size, color, thickness, cv2.LINE_AA)
