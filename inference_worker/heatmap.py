"""The heat map that a person sees: what spoke for the class, drawn over the source.

The picture keeps the source's pixels, enlarged or reduced by one factor, and by another for the
rows where they are not square; a strip with the legend is added below, so that nothing of the
source is covered by text. The source alone is drawn at the same size, to be shown beside it.
"""

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

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
_SIZES_KEPT = 4
"""Words that are the same below every picture are written once for its size: beside a busy network
each call of OpenCV waits for its turn with the interpreter."""

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
    """A source and its heat map, in the size in which they are drawn."""

    shown: Picture
    """The source, 8-bit gray ``[rows, columns]`` or RGB ``[rows, columns, 3]``."""
    level: Picture
    """The heat map ``[rows, columns]``: 0 is nothing, 255 the most."""
    legend: Legend

    @cached_property
    def capture(self) -> Picture:
        """The overlay with, to the right of it, source and heat map alone, half as large.

        8-bit RGB ``[rows, columns, 3]``. The overlay lies at the top left, where every pixel of it
        is where it is in the source.
        """
        rows, columns = self.level.shape
        width, half = self._width, -(-columns // 2)
        strip = _legend_strip(width, self.legend)
        whole = np.zeros((rows + len(strip), width + half, 3), dtype=np.uint8)
        _blend(self.shown, self.level, whole[:rows, :columns])
        whole[rows:, :width] = strip
        middle = rows // 2
        if middle:
            whole[:middle, width:] = _as_rgb(_reduced(self.shown, middle, half))
        # Reduced before it is colored: all that is seen are colors of the scale.
        whole[middle:rows, width:] = _colored(
            _reduced(self.level, rows - middle, half), _color_tables()[0]
        )
        whole[rows:, width:] = _aside_strip(len(strip), half)
        return whole

    @property
    def overlay(self) -> Picture:
        """The heat map over the source, with its legend below."""
        return self.capture[:, : self._width]

    @cached_property
    def source(self) -> Picture:
        """The source, of the overlay's size; gray where it is."""
        strip = _source_strip(self._width, *self.shown.shape[2:])
        return np.vstack([_widened(self.shown, self._width), strip])

    @property
    def _width(self) -> int:
        return max(int(self.level.shape[1]), LEAST_COLUMNS)


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
    shown = _at_readable_size(source, pixel_aspect)
    rows, columns = shown.shape[:2]
    strength = (grid or CellGrid.even(*cam.shape)).over(cam, rows, columns)
    level = np.asarray(cv2.convertScaleAbs(strength, alpha=255.0), np.uint8)
    return Heatmap(shown, level, legend)


def heatmap_png(heatmap: Heatmap) -> bytes:
    """Encode the overlay as PNG."""
    return png_of(heatmap.overlay)


def source_png(heatmap: Heatmap) -> bytes:
    """Encode the source, at the overlay's size, as PNG; gray where nothing of it is colored."""
    picture = heatmap.source
    if picture.ndim == RGB_DIMENSIONS:
        red, green, blue = cv2.split(picture)
        if np.array_equal(red, green) and np.array_equal(red, blue):
            picture = np.asarray(red, np.uint8)
    return png_of(picture)


def _blend(shown: Picture, level: Picture, blended: Picture) -> None:
    """Draw the heat map over the source, into an RGB picture of their size."""
    share = level if shown.ndim == level.ndim else cv2.cvtColor(level, cv2.COLOR_GRAY2RGB)
    covered = cv2.multiply(shown, share, scale=STRONGEST_TINT / 255)
    left = _as_rgb(np.asarray(cv2.subtract(shown, covered), np.uint8))
    cv2.add(left, _colored(level, _color_tables()[1]), dst=blended)


def _colored(level: Picture, table: npt.NDArray[np.int32]) -> Picture:
    """Look up the color of each level."""
    # A color at once: OpenCV's own color maps look up each of its samples, in three times as long.
    found = cv2.LUT(level, table).view(np.uint8).reshape(*level.shape, 4)
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_RGBA2RGB), np.uint8)


def _reduced(picture: Picture, rows: int, columns: int) -> Picture:
    return np.asarray(cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


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
    missing = ((0, 0), (0, columns - picture.shape[1]), (0, 0))
    return np.pad(picture, missing[: picture.ndim]) if columns > picture.shape[1] else picture


def _as_rgb(picture: Picture) -> Picture:
    if picture.ndim == RGB_DIMENSIONS:
        return picture
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


@cache
def _color_scale() -> Picture:
    """Return the colors of 0 to 255, RGB ``[256, 3]``."""
    level = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    colors = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return np.asarray(colors[:, 0], np.uint8)


@cache
def _color_tables() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return, for 0 to 255, the color, and its share of a blend: four samples, the last unused."""
    level = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    tints = np.rint(STRONGEST_TINT * level / 255 * _color_scale()).astype(np.uint8)
    colors, shares = (
        np.pad(each, ((0, 0), (0, 1))).view(np.int32).reshape(1, 256)
        for each in (_color_scale(), tints)
    )
    return colors, shares


def _strip(columns: int, *samples: int) -> Picture:
    return np.zeros((LEGEND_LINES * _line_rows(columns), columns, *samples), dtype=np.uint8)


def _line_rows(columns: int) -> int:
    return max(8, round(columns * LEGEND_LINE_PER_COLUMN))


@lru_cache(maxsize=_SIZES_KEPT)
def _source_strip(columns: int, *samples: int) -> Picture:
    strip = _strip(columns, *samples)
    _write(strip, 0, AI_DISCLAIMER, WHITE)
    _write(strip, 1, "Source as the model was given it", WHITE)
    return strip


@lru_cache(maxsize=_SIZES_KEPT)
def _aside_strip(rows: int, columns: int) -> Picture:
    strip = np.zeros((rows, columns, RGB_DIMENSIONS), dtype=np.uint8)
    _write(strip, 0, "Above: the source,", DIM)
    _write(strip, 1, "and the heat map alone", DIM)
    return strip


@lru_cache(maxsize=_SIZES_KEPT)
def _empty_legend_strip(columns: int, model: str) -> Picture:
    strip = _strip(columns, RGB_DIMENSIONS)
    _write(strip, 0, AI_DISCLAIMER, WARNING)
    scale = np.linspace(0, 255, columns // 3).round().astype(np.intp)
    _bar(strip, 3, _color_scale()[scale])
    _write(strip, 3, f"Grad-CAM 0 to 1, {model}", DIM, _after_bar(strip))
    return strip


def _legend_strip(columns: int, legend: Legend) -> Picture:
    strip = _empty_legend_strip(columns, legend.model).copy()
    text = legend.finding
    if legend.finding != legend.explained_class:
        text = f"{legend.finding}; colors explain: {legend.explained_class}"
    _write(strip, 1, text, WHITE)
    bar = np.full(columns // 3, WHITE[0], dtype=np.uint8)
    bar[round(len(bar) * legend.probability) :] = WHITE[0] // 5
    _bar(strip, 2, np.repeat(bar[:, np.newaxis], 3, axis=1))
    _write(strip, 2, f"{legend.probability:.1%}", DIM, _after_bar(strip))
    return strip


def _bar(strip: Picture, line: int, colors: Picture) -> None:
    """Draw a row of colors, a third of its columns long, as a bar on a line of the strip."""
    height = len(strip) // LEGEND_LINES
    left = height // 2
    top = line * height + height // 4
    strip[top : top + height // 2, left : left + len(colors)] = colors


def _after_bar(strip: Picture) -> int:
    return len(strip) // LEGEND_LINES // 2 + int(strip.shape[1]) // 3


def _write(
    strip: Picture, line: int, text: str, color: tuple[int, int, int], left: int = 0
) -> None:
    """Write plain ASCII on a line of the strip, as large as the line, smaller where it is long."""
    height = len(strip) // LEGEND_LINES
    left += height // 2
    plain = text.encode("ascii", "replace").decode("ascii")
    wide, high = _text_size(plain)
    room = strip.shape[1] - left - height // 2
    size = min(0.6 * height / high, room / max(wide, 1))
    thickness = max(1, round(1.6 * size))
    baseline = round((line + 0.78) * height)
    cv2.putText(strip, plain, (left, baseline), FONT, size, color, thickness, cv2.LINE_AA)


@lru_cache(maxsize=256)
def _text_size(plain: str) -> tuple[int, int]:
    (wide, high), _ = cv2.getTextSize(plain, FONT, 1.0, 1)
    return int(wide), int(high)
