"""multipart/related as it is read and written (RFC 2046 §5.1, RFC 2387), piece by piece."""

from collections.abc import Iterator
from enum import Enum, auto

_LONGEST_HEAD_BYTES = 16 * 1024
_LONGEST_PADDING_BYTES = 128
_LONGEST_BOUNDARY = 70
_LINE_END = b"\r\n"


class MalformedMultipart(ValueError):
    """The body is not made of parts as its Content-Type says; the text quotes nothing of it."""


class Mark(Enum):
    """Where in a body one has come to, between pieces of content."""

    PART_BEGINS = auto()
    PART_ENDS = auto()


class _At(Enum):
    PREAMBLE = auto()
    HEAD = auto()
    CONTENT = auto()
    END = auto()


class MultipartReader:
    """Finds the parts in a body that comes in pieces, and holds back no more than a delimiter.

    Raises
    ------
    MalformedMultipart
        The boundary is none, or is longer than 70 characters.
    """

    def __init__(self, boundary: str) -> None:
        if not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
            raise MalformedMultipart("boundary: 1 to 70 ASCII characters are needed")
        self._delimiter = b"\r\n--" + boundary.encode()
        # The first delimiter may be the first line of all.
        self._left = bytearray(_LINE_END)
        self._at = _At.PREAMBLE

    def feed(self, piece: bytes) -> Iterator[Mark | memoryview]:
        """Yield the content of parts, and where they begin and end; views hold until the next.

        Raises
        ------
        MalformedMultipart
            A delimiter or the head of a part breaks the rules.
        """
        if self._at is _At.END:
            return
        self._left += piece
        while self._at is not _At.END:
            if self._at is _At.HEAD:
                if not self._skip_head():
                    return
                self._at = _At.CONTENT
                yield Mark.PART_BEGINS
            was_content = self._at is _At.CONTENT
            found, content_length = self._find_delimiter()
            if was_content and content_length:
                content = bytes(memoryview(self._left)[:content_length])
                yield memoryview(content)
            del self._left[: content_length + found]
            if not found:
                return
            if was_content:
                yield Mark.PART_ENDS

    def close(self) -> None:
        """Tell that the body has come to its end.

        Raises
        ------
        MalformedMultipart
            The closing delimiter has not come.
        """
        if self._at is not _At.END:
            raise MalformedMultipart("the body ends before its closing delimiter")

    def _find_delimiter(self) -> tuple[int, int]:
        """Return the length of the delimiter, 0 where none is complete, and what is before it.

        The end of a delimiter line stays: it belongs to the head of the part, which may be empty.
        """
        searched = 0
        while True:
            start = self._left.find(self._delimiter, searched)
            if start < 0:
                return 0, max(0, len(self._left) - len(self._delimiter) + 1)
            after = start + len(self._delimiter)
            rest = bytes(self._left[after : after + _LONGEST_PADDING_BYTES])
            if rest.startswith(b"--"):
                self._at = _At.END
                return len(self._delimiter) + 2, start
            padding = len(rest) - len(rest.lstrip(b" \t"))
            line_end = rest[padding : padding + len(_LINE_END)]
            if line_end == _LINE_END:
                self._at = _At.HEAD
                return len(self._delimiter) + padding, start
            if _LINE_END.startswith(line_end) or rest == b"-":
                if len(rest) < _LONGEST_PADDING_BYTES:
                    return 0, start
                raise MalformedMultipart("a delimiter is followed by too many blanks")
            # Content that begins as a delimiter does.
            searched = start + 1

    def _skip_head(self) -> bool:
        """Pass over the head of a part; its content says what it is. False where more is needed."""
        end = self._left.find(_LINE_END * 2)
        if end < 0 and len(self._left) <= _LONGEST_HEAD_BYTES:
            return False
        if not 0 <= end <= _LONGEST_HEAD_BYTES:
            raise MalformedMultipart("the head of a part is too long")
        del self._left[: end + len(_LINE_END) * 2]
        return True


def head_of_part(boundary: str, content_type: str, location: str = "") -> bytes:
    """Return the delimiter and the head of a part that is written."""
    lines = [f"\r\n--{boundary}", f"Content-Type: {content_type}"]
    if location:
        lines.append(f"Content-Location: {location}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii", "replace")


def end_of_parts(boundary: str) -> bytes:
    """Return the closing delimiter."""
    return f"\r\n--{boundary}--\r\n".encode()


def content_type(boundary: str, part: str) -> str:
    """Return the Content-Type of a body whose parts are ``part``."""
    return f'multipart/related; type="{part}"; boundary={boundary}'
