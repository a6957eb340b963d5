"""Where the cells of a network's feature map lie in its input, from its layers. Pure.

The center of what a cell sees follows from kernel, stride, dilation and padding of the layers below
it (Araujo et al., Distill 2019, doi 10.23915/distill.00021). Layers are those of Keras, told apart
by what they have, so that nothing here needs TensorFlow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference_worker.cell_grid import Axis, CellGrid

_IMAGE_DIMENSIONS = 4
"""[n, rows, columns, channels]."""


@dataclass(frozen=True)
class _Centers:
    """Of the cells along one axis, in pixels of the input: cell i is at ``first + step * i``."""

    first: float = 0.0
    step: float = 1.0

    def moved(self, cells: float, stride: float = 1) -> "_Centers":
        """Return those of a layer whose cell 0 is ``cells`` further, and that takes strides."""
        return _Centers(self.first + self.step * cells, self.step * stride)


_Both = tuple[_Centers, _Centers]


def cell_grid_of(network: Any) -> CellGrid | None:
    """Return where the cells of the first output of a Keras graph lie in its input.

    ``None`` where a layer is not known that changes rows and columns: then nothing better can be
    said than that the cells divide the input evenly.
    """
    found = _at_output(network, (_Centers(), _Centers()))
    if found is None:
        return None
    down, right = (
        Axis((centers.first + 0.5) / size, centers.step / size)
        for centers, size in zip(found, network.inputs[0].shape[1:3], strict=True)
    )
    return CellGrid(down, right)


def _at_output(graph: Any, at_input: _Both) -> _Both | None:
    """Follow the centers through a graph, layer by layer from its input."""
    found = {id(graph.inputs[0]): at_input}
    for layer in graph.layers:
        # A layer may stand in several graphs: only what comes from this input has centers.
        for node in getattr(layer, "_inbound_nodes", ()):
            output = node.output_tensors[0]
            inputs = [each for each in node.input_tensors if id(each) in found]
            if not inputs or id(output) in found or len(output.shape) != _IMAGE_DIMENSIONS:
                continue
            centers = _through(layer, inputs, output, found)
            if centers is not None:
                found[id(output)] = centers
    return found.get(id(graph.outputs[0]))


def _through(
    layer: Any, inputs: Sequence[Any], output: Any, found: dict[int, _Both]
) -> _Both | None:
    before = found[id(inputs[0])]
    if hasattr(layer, "layers"):
        return _at_output(layer, before)
    steps = _steps(layer, inputs[0].shape[1:3])
    if steps is not None:
        down, right = (each.moved(*step) for each, step in zip(before, steps, strict=True))
        return down, right
    # It works on each cell by itself, or joins maps of the same size; gates have another.
    alike = [found[id(each)] for each in inputs if each.shape[1:3] == output.shape[1:3]]
    if not alike or len({(down.step, right.step) for down, right in alike}) > 1:
        return None
    # What the branches of a block see differs by less than their strides.
    return _mean([down for down, _ in alike]), _mean([right for _, right in alike])


def _steps(layer: Any, size: Sequence[int | None]) -> list[tuple[float, float]] | None:
    """Return how far a layer moves cell 0 and what strides it takes, along rows and columns.

    ``None``: it does neither.
    """
    kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
    padding = getattr(layer, "padding", None)
    is_transposed = hasattr(layer, "output_padding")
    if kernel is not None and padding in {"valid", "same"} and not is_transposed:
        dilation = getattr(layer, "dilation_rate", (1, 1))
        extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        return [
            ((extent - 1) / 2 - _padded_before(padding, along, extent, stride), stride)
            for extent, along, stride in zip(extents, size, layer.strides, strict=True)
        ]
    if hasattr(layer, "cropping"):
        return [(before, 1) for before, _ in layer.cropping]
    if isinstance(padding, tuple):
        return [(-before, 1) for before, _ in padding]
    if isinstance(getattr(layer, "size", None), tuple):
        return [(0.5 / factor - 0.5, 1 / factor) for factor in layer.size]
    return None


def _padded_before(padding: str, size: int | None, extent: int, stride: int) -> int:
    if padding == "valid" or size is None:
        return 0
    return max((-(-size // stride) - 1) * stride + extent - size, 0) // 2


def _mean(centers: Sequence[_Centers]) -> _Centers:
    return _Centers(sum(each.first for each in centers) / len(centers), centers[0].step)
