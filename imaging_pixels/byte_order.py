"""Values of words as any reader of Explicit VR Little Endian has them (PS3.5 §7.3)."""

_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def from_big_endian(value: bytes, vr: str) -> bytes:
    """Return a binary value of Explicit VR Big Endian in little endian.

    That of a VR without words (OB, UN) is the same in both. A last word that is cut off stays.
    """
    width = _WORDS.get(vr, 1)
    if width == 1:
        return value
    whole = len(value) // width * width
    swapped = bytearray(value)
    for place in range(width):
        swapped[place:whole:width] = value[width - 1 - place : whole : width]
    return bytes(swapped)
