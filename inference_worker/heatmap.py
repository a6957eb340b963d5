"""The heat map that a person sees: what spoke for the class, drawn over the source.

The picture keeps the source's geometry, enlarged or reduced by one factor for both axes; a strip
with the legend is added below, so that nothing of the source is covered by text. The source alone
is drawn at the same size, to be shown beside it.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

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
    """The most probable class: the one that the colors explain, also where it is uncertain."""
    probability: float
    """Of the explained class, 0 to 1."""
    model: str
    """Name and version."""


@dataclass(frozen=True)
class Heatmap:
    """Two pictures of the same size, 8-bit RGB ``[rows, columns, 3]``."""

    overlay: Picture
    source: Picture


def cam_over_source(cam: Float32Array, rows: int, columns: int) -> Float32Array:
    """Bring a class activation map to the source's geometry, 0 to 1.

    The network was given the whole source, resized, so the map's cells divide the source evenly;
    cell centers fall where ``to_network_geometry`` took them from.
    """
    resized = cv2.resize(cam.astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(resized, 0.0, 1.0), dtype=np.float32)


def draw_heatmap(source: Picture, cam: Float32Array, legend: Legend) -> Heatmap:
    """Draw the map over an 8-bit gray or RGB source, with its legend below.

    The class label, a bar and the number of its probability, the scale of the colors, the model,
    and the words of ``AI_DISCLAIMER`` become part of the pixels.
    """
    shown = _as_rgb(_at_readable_size(source))
    rows, columns = shown.shape[:2]
    strength = cam_over_source(cam, rows, columns)
    tint = STRONGEST_TINT * strength
    tinted = np.asarray(cv2.blendLinear(_color_of(strength), shown, tint, 1.0 - tint), np.uint8)
    width = max(columns, LEAST_COLUMNS)
    plain = _strip(width)
    # Without a color: a gray source is kept as a gray picture, a third as large.
    _write(plain, 0, AI_DISCLAIMER, WHITE)
    _write(plain, 1, "Source as the model was given it", WHITE)
    return Heatmap(
        overlay=np.vstack([_widened(tinted, width), _legend_strip(width, legend)]),
        source=np.vstack([_widened(shown, width), plain]),
    )


def heatmap_png(heatmap: Heatmap) -> bytes:
    """Encode the overlay as PNG."""
    return _png(heatmap.overlay)


def source_png(heatmap: Heatmap) -> bytes:
    """Encode the source, at the overlay's size, as PNG."""
    red, green, blue = cv2.split(heatmap.source)
    is_gray = np.array_equal(red, green) and np.array_equal(red, blue)
    return _png(red if is_gray else heatmap.source)


def _at_readable_size(source: Picture) -> Picture:
    rows, columns = source.shape[:2]
    factor = max(1.0, LEAST_COLUMNS / columns)
    factor = min(factor, MOST_SIDE / max(rows, columns))
    if factor == 1.0:
        return source
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
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


def _color_of(strength: Float32Array) -> Picture:
    """Return the color of 0 to 1 as RGB; OpenCV's maps are BGR."""
    level = cv2.convertScaleAbs(strength, alpha=255.0)
    colors = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)
    return np.asarray(cv2.cvtColor(colors, cv2.COLOR_BGR2RGB), dtype=np.uint8)


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
    scale = np.linspace(0, 1, columns // 3, dtype=np.float32)[np.newaxis]
    _bar(strip, 3, _color_of(scale)[0], f"Grad-CAM 0 to 1, {legend.model}")
    return strip


def _bar(strip: Picture, line: int, colors: Picture, text: str) -> None:
    """Draw a row of colors as a bar on a line of the strip, and words to the right of it."""
    height = _line_rows(strip.shape[1])
    left = height // 2
    top = line * height + height // 4
    strip[top : top + height // 2, left : left + len(colors)] = colors
    _write(strip, line, text, DIM, left + len(colors))


def _write(
    strip: Picture, line: int, text: str, color: tuple[int, int, int], left: int = 0
) -> None:
    """Write plain ASCII on a line of the strip, as large as the line, smaller where it is long."""
    height = _line_rows(strip.shape[1])
    left += height // 2
    plain = text.encode("ascii", "replace").decode("ascii")
    (wide, high), _ = cv2.getTextSize(plain, FONT, 1.0, 1)
    room = strip.shape[1] - left - height // 2
    size = min(0.6 * height / high, room / max(wide, 1))
    thickness = max(1, round(1.6 * size))
    baseline = round((line + 0.78) * height)
    cv2.putText(strip, plain, (left, baseline), FONT, size, color, thickness, cv2.LINE_AA)


def _png(picture: Picture) -> bytes:
    if picture.ndim == RGB_DIMENSIONS:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
    done, encoded = cv2.imencode(".png", picture)
    if not done:
        raise RuntimeError("OpenCV could not encode a PNG")
    return bytes(encoded.tobytes())
