"""A private Orthanc: the PACS that sends studies and receives results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from typing_extensions import override

from service_runtime.dicom_tls import TlsFiles
from tests.peers.processes import (
    LOOPBACK,
    Peer,
    ServerProcess,
    find_program,
    free_port,
    newest,
    private_folder,
    require,
)

_ROUTE_EVERYTHING = """\
function OnStoredInstance(instanceId, tags, metadata, origin)
  SendToModality(instanceId, {destination})
end
"""


@dataclass(frozen=True)
class Modality:
    """A DICOM application entity on loopback that Orthanc may send to."""

    ae_title: str
    port: int
    tls: bool = False


def _entry(modality: Modality) -> dict[str, Any]:
    return {
        "AET": modality.ae_title,
        "Host": LOOPBACK,
        "Port": modality.port,
        "UseDicomTls": modality.tls,
    }


class Orthanc(Peer):
    """An archive with a DICOM port and a REST port.

    Parameters
    ----------
    modalities
        Whom it knows from the start, by a name of its own; ``add_modality`` adds later.
    tls
        Its certificate. With one it speaks DICOM by TLS only, to whom has one of the same
        authority's.
    """

    def __init__(
        self,
        *,
        ae_title: str = "ORTHANC",
        modalities: Mapping[str, Modality] | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        program = require(
            find_program("Orthanc") or newest("/usr/sbin/Orthanc"), "Orthanc", "orthanc"
        )
        self.ae_title = ae_title
        self.dicom_port, self.http_port = free_port(), free_port()
        self._folder = private_folder("orthanc")
        self._known = dict(modalities or {})
        self._tls = tls
        self._scripts: list[str] = []
        # DCMTK leaves Nagle's algorithm on: 40 ms an instance on loopback without this.
        environment = {"TCP_NODELAY": "1", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        self.processes = [
            ServerProcess(
                [program, self._folder / "orthanc.json"],
                log=self._folder / "server.log",
                environment=environment,
            )
        ]
        self._rest = self._client()

    @override
    def start(self) -> None:
        (self._folder / "orthanc.json").write_text(json.dumps(self._configuration()))
        server = self.processes[0]
        server.start()
        server.wait_until_ready(self._answers)

    def _answers(self) -> bool:
        try:
            return self._rest.get("/system").is_success
        except httpx.TransportError:
            return False

    @override
    def kill(self) -> None:
        super().kill()
        self._rest.close()
        self._rest = self._client()

    def _client(self) -> httpx.Client:
        base_url = f"http://{LOOPBACK}:{self.http_port}"
        return httpx.Client(base_url=base_url, timeout=60, trust_env=False)

    def _configuration(self) -> dict[str, Any]:
        return self._tls_configuration() | {
            "Name": "test",
            "StorageDirectory": str(self._folder / "storage"),
            "IndexDirectory": str(self._folder / "storage"),
            "LuaScripts": self._scripts,
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "DicomModalities": {name: _entry(modality) for name, modality in self._known.items()},
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "UnknownSopClassAccepted": True,
            "OverwriteInstances": False,
            "DicomAlwaysAllowFind": True,
            "DicomScuTimeout": 30,
            "TcpNoDelay": True,
            "SyncStorageArea": False,
        }

    def _tls_configuration(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {
            "DicomTlsEnabled": True,
            "DicomTlsRemoteCertificateRequired": True,
            "DicomTlsCertificate": str(self._tls.certificate),
            "DicomTlsPrivateKey": str(self._tls.key),
            "DicomTlsTrustedCertificates": str(self._tls.authorities),
        }

    def add_modality(self, name: str, modality: Modality) -> None:
        """Make an application entity known while Orthanc runs, and after a restart.

        Orthanc finds who asks by AE title: another of the same title is forgotten.
        """
        for other in [
            other for other, each in self._known.items() if each.ae_title == modality.ae_title
        ]:
            del self._known[other]
            self._rest.delete(f"/modalities/{other}").raise_for_status()
        self._known[name] = modality
        self._rest.put(f"/modalities/{name}", json=_entry(modality)).raise_for_status()

    def route_everything_to(self, name: str) -> None:
        """Send every instance that arrives from now on to a modality at once, restarting for it."""
        script = self._folder / "route.lua"
        script.write_text(_ROUTE_EVERYTHING.format(destination=json.dumps(name)))
        self._scripts = [str(script)]
        self.stop()
        self.start()

    def upload(self, part10_file: bytes | Path) -> str:
        """Store one Part 10 file over REST and return its SOP Instance UID."""
        content = part10_file.read_bytes() if isinstance(part10_file, Path) else part10_file
        answer = self._rest.post("/instances", content=content).raise_for_status().json()
        tags = self._rest.get(f"/instances/{answer['ID']}/simplified-tags").raise_for_status()
        uid: str = tags.json()["SOPInstanceUID"]
        return uid

    def find(self, level: str, **attributes: str) -> list[str]:
        """Return Orthanc's ids of what matches, for instance ``find("Study", PatientID="X")``."""
        query = {"Level": level, "Query": attributes}
        ids: list[str] = self._rest.post("/tools/find", json=query).raise_for_status().json()
        return ids

    def instances(self, study_instance_uid: str, modality: str | None = None) -> list[str]:
        """Return Orthanc's ids of a study's instances, of one modality such as ``SR`` only."""
        query = {"StudyInstanceUID": study_instance_uid}
        if modality is not None:
            query["Modality"] = modality
        return self.find("Instance", **query)

    def count_instances(self, study_instance_uid: str, modality: str | None = None) -> int:
        """Return how many instances of a study it holds."""
        return len(self.instances(study_instance_uid, modality))

    def download(self, instance_id: str) -> bytes:
        """Return the Part 10 file of an instance."""
        return self._rest.get(f"/instances/{instance_id}/file").raise_for_status().content

    def send_study(self, study_instance_uid: str, modality: str) -> None:
        """Send a study to a modality by C-STORE and wait until all of it has been answered."""
        [study] = self.find("Study", StudyInstanceUID=study_instance_uid)
        body = {"Resources": [study], "Synchronous": True}
        self._rest.post(f"/modalities/{modality}/store", json=body).raise_for_status()

    def ask_for_commitment(self, study_instance_uid: str, modality: str) -> str:
        """Send a study, ask for storage commitment, and return the transaction's UID."""
        [study] = self.find("Study", StudyInstanceUID=study_instance_uid)
        body = {"Resources": [study], "Synchronous": True, "StorageCommitment": True}
        answer = self._rest.post(f"/modalities/{modality}/store", json=body).raise_for_status()
        uid: str = answer.json()["StorageCommitmentTransactionUID"]
        return uid

    def commitment(self, transaction_uid: str) -> dict[str, Any]:
        """Return what it has heard of a storage commitment: ``Status`` and which instances."""
        answer = self._rest.get(f"/storage-commitment/{transaction_uid}").raise_for_status()
        said: dict[str, Any] = answer.json()
        return said

    def delete_study(self, study_instance_uid: str) -> None:
        """Forget a study."""
        for study in self.find("Study", StudyInstanceUID=study_instance_uid):
            self._rest.delete(f"/studies/{study}").raise_for_status()
