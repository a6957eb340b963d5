"""The listener as a process, and requestors that send bytes as they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import data_element_generator
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from sqlalchemy import Table, create_engine, select

from imaging_store.instances import FileInstanceStore
from message_contracts import catalogue
from message_contracts.envelope import Envelope
from message_contracts.message import Message
from service_runtime.messaging.tables import message
from tests.peers.processes import LOOPBACK, ServerProcess, accepts_connections, free_port, is_alive
from tests.sending_order import sending_order

CHECKOUT = Path(__file__).parents[3]
CT = "1.2.840.10008.5.1.4.1.1.2"


class Listener:
    """``python -m dicom_listener`` on a folder and a database of its own."""

    def __init__(self, folder: Path, database_url: str, **settings: object) -> None:
        self.folder = folder
        self.database_url = database_url
        self.port = free_port()
        is_plain = settings.get("dicom_plain", True)
        self._ready_ports = [self.port if is_plain else int(str(settings["dicom_tls_port"]))]
        if "health_port" in settings:
            self._ready_ports.append(int(str(settings["health_port"])))
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONUNBUFFERED": "1",
            "COUNTERSIGN_DATA_DIR": str(folder),
            "COUNTERSIGN_DATABASE_URL": database_url,
            "COUNTERSIGN_DICOM_PORT": str(self.port),
            "COUNTERSIGN_QUIET_PERIOD_S": "0.3",
            "COUNTERSIGN_STORE_RESERVE_MIB": "0",
        }
        environment |= {
            f"COUNTERSIGN_{name.upper()}": str(value) for name, value in settings.items()
        }
        folder.mkdir(exist_ok=True, parents=True)
        self.process = ServerProcess(
            [sys.executable, "-m", "dicom_listener"],
            log=folder / "listener.log",
            environment=environment,
        )
        self.store = FileInstanceStore(folder / "instances")
        self._engine = create_engine(database_url)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self._engine.dispose()

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.process.start()
        self.process.wait_until_ready(
            lambda: all(map(accepts_connections, self._ready_ports)) and len(self.children) == 4
        )

    @property
    def children(self) -> list[int]:
        """Process ids of the receiving, the indexing and the announcing processes, oldest first."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in path.read_text().split()]

    def living_children(self) -> list[int]:
        """Process ids of those children that have not ended and wait to be collected."""
        return [child for child in self.children if is_alive(child)]

    def rows(self, table: Table) -> list[Any]:
        """All rows of a table."""
        with self._engine.connect() as connection:
            return list(connection.execute(select(table)).all())

    def execute(self, statement: Any, values: dict[str, Any]) -> None:
        """Write what another service would have written."""
        with self._engine.begin() as connection:
            connection.execute(statement, values)

    def messages(self, *kinds: type[Message]) -> list[Any]:
        """Bodies of the messages sent, of some kinds only, the oldest first."""
        return [each.body for each in self.envelopes() if type(each.body) in kinds]

    def envelopes(self) -> list[Envelope]:
        """All messages sent, the oldest first."""
        order = sending_order(self._engine.dialect.name)
        with self._engine.connect() as connection:
            rows = connection.execute(select(message.c.body).order_by(order)).all()
        return [catalogue.decode(row.body) for row in rows]

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "listener.log").read_text()

    def unfinished(self) -> list[Path]:
        """Files that are not, or not yet, instances: without a name, or in ``incoming``."""
        incoming = self.folder / "instances" / "incoming"
        unnamed = []
        for child in self.children:
            for descriptor in Path(f"/proc/{child}/fd").glob("*"):
                with suppress(OSError):  # closed meanwhile, or its process has ended
                    unnamed.append(descriptor.readlink())
        return [*incoming.iterdir(), *(path for path in unnamed if path.parent == incoming)]


@dataclass(frozen=True)
class Sendable:
    """One data set as bytes, and what the command is to say of it."""

    data: bytes
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str


def sendable(ds: Dataset) -> Sendable:
    """Encode a data set in Explicit VR Little Endian."""
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    write_dataset(file, ds)
    return Sendable(
        file.getvalue(), ExplicitVRLittleEndian, str(ds.SOPClassUID), str(ds.SOPInstanceUID)
    )


def sendable_file(path: Path) -> Sendable:
    """Take the data set of a file as it lies there, whatever is before it."""
    content = path.read_bytes()
    start = 132 if content[128:132] == b"DICM" else 0
    file = BytesIO(content)
    file.seek(start)
    if content[start : start + 2] == b"\x02\x00":
        for _ in data_element_generator(
            file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda t, *_: t >> 16 > 2
        ):
            pass
    ds = dcmread(path, force=True, stop_before_pixels=True)
    transfer_syntax_uid = ds.file_meta.get("TransferSyntaxUID")
    if transfer_syntax_uid is None:
        is_implicit, is_little = ds.original_encoding
        transfer_syntax_uid = "1.2.840.10008.1.2" if is_implicit else "1.2.840.10008.1.2.1"
        assert is_little, "big endian needs File Meta Information"
    return Sendable(
        content[file.tell() :],
        str(transfer_syntax_uid),
        str(ds.get("SOPClassUID") or CT),
        str(ds.get("SOPInstanceUID") or generate_uid()),
    )


def associate(port: int, *contexts: tuple[str, str], ae_title: str = "MODALITY") -> Association:
    """Open an association that proposes these abstract and transfer syntaxes."""
    ae = AE(ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    unique = list(dict.fromkeys(contexts))
    requested = [build_context(UID(abstract), [transfer]) for abstract, transfer in unique]
    association = ae.associate(LOOPBACK, port, contexts=requested, ae_title="COUNTERSIGN")
    association.threads_of_ae = ae  # keeps the AE alive as long as the association
    return association


def store(association: Association, sent: Sendable, priority: int = 2) -> C_STORE | None:
    """Send the bytes as they are; return the response, or None where none came."""
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = UID(sent.sop_class_uid)
    request.AffectedSOPInstanceUID = UID(sent.sop_instance_uid)
    request.Priority = priority
    request.DataSet = BytesIO(sent.data)
    context = next(
        context
        for context in association.accepted_contexts
        if context.abstract_syntax == sent.sop_class_uid
        and context.transfer_syntax[0] == sent.transfer_syntax_uid
    )
    association._reactor_checkpoint.clear()
    while not association._is_paused and association.is_alive():
        pass
    try:
        association.dimse.send_msg(request, context.context_id)
        _, response = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return response


def send(port: int, sent: Sequence[Sendable], ae_title: str = "MODALITY") -> list[int]:
    """Send data sets over one association; return the statuses that were answered."""
    contexts = [(each.sop_class_uid, each.transfer_syntax_uid) for each in sent]
    association = associate(port, *contexts, ae_title=ae_title)
    assert association.is_established
    statuses = []
    for each in sent:
        response = store(association, each)
        if response is None or not response.is_valid_response:
            break
        statuses.append(int(response.Status))
    association.release()
    return statuses


def a_slice(**changes: object) -> Dataset:
    """Draw a small CT slice of a study of its own."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = CT, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.StudyDate, ds.StudyTime = "20260704", "120000"
    ds.Modality, ds.PatientID, ds.PatientName = "CT", "P1", "Doe^Jane"
    ds.InstanceNumber = 1
    ds.Rows = ds.Columns = 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.add_new("PixelData", "OW", bytes(128))
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds
