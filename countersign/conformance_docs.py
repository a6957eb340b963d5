"""The tables of the DICOM conformance statement that the code itself is the source of."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic_core import PydanticUndefined
from pydicom._uid_dict import UID_dictionary

from dicom_listener import store_status
from dicom_listener.dicomweb import frames, retrieval
from dicom_listener.dicomweb.pixel_work import AT_ONE_TIME
from dicom_listener.dicomweb.search_parameters import LARGEST_PAGE
from dicom_listener.dicomweb.settings import DicomWebSettings
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.settings import ListenerSettings
from dicom_listener.sop_classes import TRANSFER_SYNTAXES, is_storage
from dicom_listener.store_status import StoreAnswer
from imaging_pixels import image_pixel, transcode
from service_runtime.settings import ENV_PREFIX

_BLOCK = re.compile(
    r"(?P<begin><!-- begin (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end (?P=name) -->)", re.DOTALL
)
_LIMITS = (
    "max_associations",
    "acse_timeout_s",
    "dimse_timeout_s",
    "association_idle_timeout_s",
)


class UnknownBlock(ValueError):
    """The statement asks for a table that nobody makes."""


def fill(statement: str) -> str:
    """Return the statement with every marked block as the code has it now.

    A block stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    Raises
    ------
    UnknownBlock
        No table has this name.
    """

    def block(match: re.Match[str]) -> str:
        make = BLOCKS.get(match["name"])
        if make is None:
            raise UnknownBlock(match["name"])
        return f"{match['begin']}\n{make()}\n\n{match['end']}"

    return _BLOCK.sub(block, statement)


def _identification() -> str:
    return _table(
        ("", ""),
        [
            ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
        ],
    )


def _limits() -> str:
    rows = []
    for name in _LIMITS:
        field = ListenerSettings.model_fields[name]
        default = "" if field.default is PydanticUndefined else str(field.default)
        rows.append((f"`{ENV_PREFIX}{name.upper()}`", default, str(field.description)))
    return _table(("setting", "default", "meaning"), rows)


def _sop_classes() -> str:
    rows = sorted(
        (_name(uid), f"`{uid}`")
        for uid, (_, kind, *_rest) in UID_dictionary.items()
        if kind == "SOP Class" and is_storage(uid)
    )
    return _table(("SOP Class", "UID"), rows)


def _transfer_syntaxes() -> str:
    return _table(
        ("Transfer Syntax", "UID"), sorted((_name(uid), f"`{uid}`") for uid in TRANSFER_SYNTAXES)
    )


def _statuses() -> str:
    answers = [each for each in vars(store_status).values() if isinstance(each, StoreAnswer)]
    rows = [
        (f"{each.status:04X}", each.status.name.replace("_", " ").capitalize(), each.comment)
        for each in sorted(answers, key=lambda each: (each.status, each.comment))
    ]
    return _table(("Status", "Meaning", "Error Comment"), rows)


def _dicomweb_limits() -> str:
    longest_post = DicomWebSettings.model_fields["dicomweb_max_post_mib"].default
    no_others = "406; of several instances it is left out"
    rows = [
        (
            "a request to store",
            f"`{ENV_PREFIX}DICOMWEB_MAX_POST_MIB`, default {longest_post} MiB",
            "413",
        ),
        *(
            (f"results of a search at {level.name.lower()} level", f"{size}", "a Warning")
            for level, size in LARGEST_PAGE.items()
        ),
        ("frames in a list", f"{frames.MOST_FRAMES}", "400"),
        ("one frame, decoded", _mebibytes(image_pixel.MOST_BYTES), "406"),
        (
            "an instance that is transcoded, as stored",
            _mebibytes(retrieval.LONGEST_TRANSCODED_BYTES),
            no_others,
        ),
        ("its frames together, decompressed", _mebibytes(transcode.MOST_BYTES), no_others),
        (
            "a deflated data set, inflated, where it is not sent as stored",
            _mebibytes(retrieval.MOST_INFLATED_BYTES),
            "406; its metadata are what searches return",
        ),
        (
            "all deflated data sets of which frames or bulk data are being sent, inflated",
            _mebibytes(frames.INFLATED_BYTES),
            "503 with Retry-After",
        ),
        ("instances rendered, decoded or transcoded at one time", f"{AT_ONE_TIME}", "others wait"),
    ]
    return _table(("What", "Limit", "Beyond it"), rows)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB"


def _name(uid: str) -> str:
    name, *_, retired = UID_dictionary[uid][:4]
    return f"{name or 'unnamed'}{' (retired)' if retired == 'Retired' else ''}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "identification": _identification,
    "limits": _limits,
    "storage-sop-classes": _sop_classes,
    "transfer-syntaxes": _transfer_syntaxes,
    "storage-statuses": _statuses,
    "dicomweb-limits": _dicomweb_limits,
}
"""Name of a block to what makes it."""
