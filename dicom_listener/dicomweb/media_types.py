"""Media types as HTTP names them: of bodies, and of what is acceptable (PS3.18 §8.7)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
OCTET_STREAM = "application/octet-stream"
MULTIPART = "multipart/related"

# A quotation that does not end takes all that is left: nothing is tried from each of its marks.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*(?:"|\\?\Z))+')
_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*=\s*("(?:\\.|[^"\\])*"|[^\s;,"]*)')
_NAME = re.compile(r"\s*([^\s;,/]+/[^\s;,/]+)\s*")
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type, or in Accept a range of them: ``image/*``."""

    name: str
    """Type and subtype, lower case."""
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def part(self) -> str:
        """What the parts of a multipart/related are (RFC 2387); anything where it is not said."""
        return self.parameters.get("type", "*/*").lower()

    @property
    def transfer_syntax(self) -> str:
        """UID, ``*``, or nothing where it is not said (PS3.18 §8.7.3.5)."""
        return self.parameters.get("transfer-syntax", "")

    def covers(self, name: str) -> bool:
        """Whether ``name`` falls into this range."""
        return covers(self.name, name)


ANYTHING = MediaType("*/*")


def covers(wanted: str, name: str) -> bool:
    """Whether the media type ``name`` falls into the range ``wanted``."""
    if wanted in ("*/*", name):
        return True
    return wanted.endswith("/*") and name.startswith(wanted[:-1])


def parse_media_type(text: str) -> MediaType | None:
    """Return the media type of a Content-Type, or ``None`` where it is none."""
    match = _NAME.match(text[:_LONGEST])
    if match is None:
        return None
    parameters = {
        name.lower(): _unquoted(value)
        for name, value in _PARAMETER.findall(text[match.end() : _LONGEST])
    }
    return MediaType(match[1].lower(), parameters)


def acceptable(fields: Iterable[str]) -> tuple[MediaType, ...]:
    """Return what Accept fields name, the most wanted first; anything where they name nothing."""
    named = sorted(_weighted(fields), key=lambda each: -each[0])
    if not named:
        return (ANYTHING,)
    return tuple(media_type for weight, media_type in named if weight > 0)


def _weighted(fields: Iterable[str]) -> Iterator[tuple[float, MediaType]]:
    for text in fields:
        for element in _ELEMENT.findall(text[:_LONGEST]):
            media_type = parse_media_type(element)
            if media_type is None:
                continue
            try:
                weight = float(media_type.parameters.get("q", "1"))
            except ValueError:
                weight = 0.0
            yield weight, media_type


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
