"""A picture out of an instance: decode, modality and VOI LUT, render to 8 bits."""
