"""What an object made from another has to say of lossy compression (PS3.3 §C.7.6.1.1.5)."""

from pydicom import Dataset
from pydicom.encaps import generate_fragments
from pydicom.uid import UID

from imaging_pixels.decode import frame_count
from imaging_pixels.transcode import LOSSY_METHODS
from inference_worker.copied_attributes import put, valid_values


def describe_compression(made: Dataset, source: Dataset) -> None:
    """Say that it is lossy where its source ever was: once lossy, always lossy."""
    transfer_syntax_uid = UID(source.file_meta.get("TransferSyntaxUID", ""))
    declared = valid_values(source, "LossyImageCompression")
    if declared == ("01",) or transfer_syntax_uid in LOSSY_METHODS:
        made.LossyImageCompression = "01"
    elif declared == ("00",):
        made.LossyImageCompression = "00"
        return
    else:
        return
    ratios = valid_values(source, "LossyImageCompressionRatio")
    methods = valid_values(source, "LossyImageCompressionMethod")
    if transfer_syntax_uid in LOSSY_METHODS and not (ratios and len(ratios) == len(methods)):
        ratios, methods = (_ratio(source),), (LOSSY_METHODS[transfer_syntax_uid],)
    if ratios and len(ratios) == len(methods):
        put(made, "LossyImageCompressionRatio", ratios)
        put(made, "LossyImageCompressionMethod", methods)


def _ratio(source: Dataset) -> str:
    """Return the size of the pixels in the form that we read them, over their size as kept."""
    coded = sum(len(fragment) for fragment in generate_fragments(source.PixelData))
    samples = int(source.get("SamplesPerPixel") or 1)
    cells = source.Rows * source.Columns * samples * frame_count(source)
    return f"{cells * source.BitsAllocated / 8 / max(coded, 1):.2f}"
