"""Who sends an instance, and over which association."""

from dataclasses import dataclass

from dicom_listener.open_associations import OpenAssociation
from dicom_listener.peers import Peer


@dataclass(frozen=True, slots=True)
class Sender:
    """The association that an instance comes on, as far as keeping it asks for that."""

    peer: Peer
    """What holds for it, as it was when the association was accepted."""
    called_ae_title: str
    association: OpenAssociation | None = None
    """None where instances come without one, over HTTP."""

    @property
    def calling_ae_title(self) -> str:
        """What the sender calls itself."""
        return self.peer.ae_title
