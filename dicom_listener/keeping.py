"""What takes the data set of a C-STORE while it arrives."""

from typing import Protocol

from dicom_listener.c_store import StoreRequest
from dicom_listener.open_associations import OpenAssociation
from dicom_listener.sender import Sender
from dicom_listener.store_status import StoreAnswer


class Reception(Protocol):
    """Keeps one data set while it arrives. Never raises; ends with ``finish`` or ``abandon``."""

    def write(self, *fragments: memoryview) -> None:
        """Take the next bytes; they are only valid during the call."""

    def room(self) -> memoryview | None:
        """Return where the next bytes may be put, for `took`, instead of being written."""

    def took(self, piece: memoryview) -> None:
        """Take the next bytes, which were put at the beginning of what `room` returned."""

    def finish(self) -> StoreAnswer:
        """All bytes are there: make them durable and have them entered, or say why not."""

    def abandon(self) -> None:
        """Leave nothing, because the rest will not come."""


class Keep(Protocol):
    """Begins to keep a data set that is about to arrive."""

    def __call__(
        self, request: StoreRequest, transfer_syntax_uid: str, sender: Sender
    ) -> Reception:
        """Return what takes the data set."""

    def association_ended(self, association: OpenAssociation) -> None:
        """Nothing more will come over an association."""


class Refusal:
    """Takes a data set that is refused, and drops it."""

    def __init__(self, answer: StoreAnswer) -> None:
        self._answer = answer

    def write(self, *fragments: memoryview) -> None:
        """Drop the bytes."""

    def room(self) -> None:
        """Have none: the bytes are dropped."""

    def took(self, piece: memoryview) -> None:
        """Drop the bytes."""

    def finish(self) -> StoreAnswer:
        """Refuse."""
        return self._answer

    def abandon(self) -> None:
        """There is nothing to leave."""
