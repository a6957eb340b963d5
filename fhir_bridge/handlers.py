"""What happens on ``report.requested``: render, keep, deliver, tell."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import update

from fhir_bridge import reading
from fhir_bridge.bundle import SentBundle, transaction
from fhir_bridge.client import EhrRefused
from fhir_bridge.references import Site
from fhir_bridge.report import Pictures, render
from fhir_bridge.signed_report import SignedReport
from imaging_store.instances import InstanceStore
from imaging_store.schema.delivery import ehr_submission
from message_contracts.delivery import (
    ReportDelivered,
    ReportFailed,
    ReportRequested,
    ResourceOutcome,
)
from message_contracts.envelope import Envelope
from service_runtime.database import Database, Transaction
from service_runtime.messaging.answering import answer
from service_runtime.messaging.consumer import Effect

SOURCE = "fhir_bridge"

_LOG = structlog.get_logger()

Deliver = Callable[[SignedReport, SentBundle, bytes], tuple[ResourceOutcome, ...]]


@dataclass(frozen=True)
class Bridge:
    """The handlers of the queue ``report``."""

    database: Database
    store: InstanceStore
    site: Site
    zone: ZoneInfo
    patient_id_systems: dict[str, str]
    deliver: Deliver
    now: Callable[[], datetime]

    def on_report_requested(self, envelope: Envelope) -> Effect:
        """Deliver a signed report; done again, it does the same thing again.

        Raises
        ------
        EhrUnavailable, CaseOnHold
            Try again later.
        EhrRefused, NotSigned
            Trying again cannot help. What the EHR answered is kept beside the report.
        """
        requested = envelope.data(ReportRequested)
        with self.database.reading() as connection:
            report = reading.load(connection, requested.case_id, requested.case_version)
        pdf = self._pdf(report)
        bundle = transaction(report, self.site, pdf, self.patient_id_systems)
        self.store.put_artifact(key_of(requested, "bundle.json"), bundle.json)
        self._record_rendered(requested, pdf)
        try:
            outcomes = self.deliver(report, bundle, pdf)
        except EhrRefused as refusal:
            self._keep_refusal(requested, refusal)
            raise
        _LOG.info(
            "report.delivered",
            case_id=str(requested.case_id),
            case_version=requested.case_version,
            count=len(outcomes),
        )
        return lambda tx: self._delivered(tx, envelope, outcomes)

    def on_exhausted(self, envelope: Envelope, reason: str) -> Effect:
        """Tell that a report was not delivered; a dead letter of it can be replayed."""
        requested = envelope.data(ReportRequested)
        failed = ReportFailed(
            case_id=requested.case_id,
            case_version=requested.case_version,
            outcomes=self._refused_outcomes(requested, reason),
            reason=reason,
        )
        return lambda tx: answer(tx, envelope, failed, source=SOURCE, time=self.now())

    def _pdf(self, report: SignedReport) -> bytes:
        """Return the PDF of this version: the one that is kept, where there is one."""
        key = f"{_folder(report.case_id, report.version)}/report.pdf"
        if self.store.exists(key):
            return self.store.read(key)
        pictures = None
        if report.reading is not None:
            pictures = Pictures(
                source=self.store.read(report.reading.source_key),
                heatmap=self.store.read(report.reading.heatmap_key),
            )
        pdf = render(report, self.site, pictures, self.zone)
        self.store.put_artifact(key, pdf)
        return pdf

    def _record_rendered(self, requested: ReportRequested, pdf: bytes) -> None:
        """Have the report found before the EHR has taken it: the EHR may be away for a night."""
        row = {
            "case_id": requested.case_id,
            "case_version": requested.case_version,
            "pdf_key": key_of(requested, "report.pdf"),
            "pdf_sha256": hashlib.sha256(pdf).hexdigest(),
            "bundle_key": key_of(requested, "bundle.json"),
            "outcomes": [],
            "rendered_at": self.now(),
        }
        with self.database.transaction() as tx:
            tx.connection.execute(self.database.insert_new(ehr_submission).values(row))

    def _delivered(
        self, tx: Transaction, envelope: Envelope, outcomes: tuple[ResourceOutcome, ...]
    ) -> None:
        requested = envelope.data(ReportRequested)
        tx.connection.execute(
            update(ehr_submission)
            .where(
                ehr_submission.c.case_id == requested.case_id,
                ehr_submission.c.case_version == requested.case_version,
            )
            .values(outcomes=[it.model_dump() for it in outcomes], delivered_at=self.now())
        )
        delivered = ReportDelivered(
            case_id=requested.case_id, case_version=requested.case_version, outcomes=outcomes
        )
        answer(tx, envelope, delivered, source=SOURCE, time=self.now())

    def _keep_refusal(self, requested: ReportRequested, refusal: EhrRefused) -> None:
        kept: dict[str, Any] = {
            "reason": str(refusal),
            "outcomes": [it.model_dump() for it in refusal.outcomes],
            "answer": refusal.answer,
        }
        key = key_of(requested, "refusal.json")
        self.store.put_artifact(key, json.dumps(kept, ensure_ascii=False).encode())
        _LOG.warning("report.refused", reason=str(refusal), key=key)

    def _refused_outcomes(
        self, requested: ReportRequested, reason: str
    ) -> tuple[ResourceOutcome, ...]:
        """Return the outcome per resource where the EHR has refused, for this very reason."""
        key = key_of(requested, "refusal.json")
        if not self.store.exists(key):
            return ()
        kept = json.loads(self.store.read(key))
        if kept["reason"] != reason:
            return ()
        return tuple(ResourceOutcome.model_validate(it) for it in kept["outcomes"])


def key_of(requested: ReportRequested, name: str) -> str:
    """Return where the instance store keeps what belongs to one version of a report."""
    return f"{_folder(requested.case_id, requested.case_version)}/{name}"


def _folder(case_id: object, version: int) -> str:
    return f"reports/{case_id}/v{version}"
