"""N-EVENT-REPORT on an association of our own, which proposes us as the SCP (PS3.7 §D.3.3.4)."""

import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pynetdicom import AE, build_role
from pynetdicom.association import Association

from dicom_listener.commitment_telling import Address, Event
from dicom_listener.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from service_runtime.dicom_tls import BrokenTlsFiles

_TIMEOUT_S = 30
_IMPLICIT_VR, _EXPLICIT_VR = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


@dataclass(frozen=True, slots=True)
class Reporter:
    """Reports to one AE at a time."""

    new_ae: Callable[[], AE]
    """Makes the local AE."""
    tls: Callable[[], ssl.SSLContext] | None
    """Makes the context of an association by TLS; ``None``: the installation has no certificate."""

    def __call__(self, address: Address, events: Sequence[Event]) -> Iterator[int | str]:
        """Give for each event the status that was answered, or why none was."""
        context = None
        if address.tls:
            if self.tls is None:
                yield from ["DICOM TLS is not set up"] * len(events)
                return
            try:
                context = self.tls()
            except BrokenTlsFiles as error:
                yield from [str(error)] * len(events)
                return
        ae = self.new_ae()
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _TIMEOUT_S
        ae.connection_timeout = _TIMEOUT_S
        ae.add_requested_context(STORAGE_COMMITMENT, [_EXPLICIT_VR, _IMPLICIT_VR])
        association = ae.associate(
            address.host,
            address.port,
            ae_title=address.ae_title,
            ext_neg=[build_role(STORAGE_COMMITMENT, scp_role=True)],
            tls_args=None if context is None else (context, None),
        )
        if not association.is_established:
            why = "rejected" if association.is_rejected else "not reached, or aborted"
            yield from [f"association {why}"] * len(events)
            return
        try:
            for event in events:
                yield _report(association, event)
        finally:
            association.release()


def _report(association: Association, event: Event) -> int | str:
    if not association.is_established:
        return "the association has ended"
    try:
        status, _ = association.send_n_event_report(
            event.information, event.type_id, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
    except ValueError:
        return "Storage Commitment, or our being its SCP, was not accepted"
    except RuntimeError:
        return "the association has ended"
    return int(status.Status) if "Status" in status else "no answer"
