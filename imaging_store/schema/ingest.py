"""Studies and instances as they came; ``dicom_listener`` alone writes these."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Uuid,
    false,
    text,
)

from service_runtime.database import UtcDateTime, metadata

study = Table(
    "study",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    # The patient is (Patient ID, issuer); the issuer is the instance's, the AE's or the site's.
    Column("patient_id", String(64), nullable=False),
    Column("issuer_of_patient_id", String(64), nullable=False),
    # (0010,0010) decoded, component groups separated by "=".
    Column("patient_name", String(400), nullable=False),
    # DA and CS values as sent; empty where the source has none.
    Column("patient_birth_date", String(8), nullable=False),
    Column("patient_sex", String(16), nullable=False),
    # (0010,1010) as the first instance that came has it, such as 018Y.
    Column("patient_age", String(4), nullable=False, server_default=text("''")),
    Column("accession_number", String(64), nullable=False),
    Column("study_id", String(64), nullable=False),
    Column("study_description", String(255), nullable=False),
    Column("referring_physician_name", String(400), nullable=False),
    Column("institution_name", String(255), nullable=False),
    # ISO 8601: a date only where the source has no time, else date, time and offset.
    Column("started", String(40), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    # When the first instance came that belongs to a version not yet announced; else null.
    Column("pending_since", UtcDateTime),
    # Until when the newest of them keeps the study waiting: its arrival and its sender's quiet
    # period; else null.
    Column("quiet_until", UtcDateTime),
    # The last version announced; 0 while the first is arriving.
    Column("version", Integer, nullable=False),
    # Since when the bytes of none of its instances are kept any more; else null.
    Column("purged_at", UtcDateTime),
    Index("ix_study_quiet_until", "quiet_until"),
    Index("ix_study_patient", "issuer_of_patient_id", "patient_id"),
    # What the purge looks at: of most studies that ever came nothing is kept any more.
    Index(
        "ix_study_kept",
        "study_instance_uid",
        sqlite_where=text("purged_at IS NULL"),
        postgresql_where=text("purged_at IS NULL"),
    ),
    # The order of searches, the newest study first.
    Index("ix_study_started", "started", "study_instance_uid"),
)

instance = Table(
    "instance",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column(
        "study_instance_uid", String(64), ForeignKey("study.study_instance_uid"), nullable=False
    ),
    Column("series_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("body_part_examined", String(16), nullable=False),
    Column("view_position", String(16), nullable=False),
    # What View Code Sequence says, as the term of View Position; empty where it says nothing known.
    Column("view_code", String(16), nullable=False, server_default=text("''")),
    Column("laterality", String(16), nullable=False),
    # (0008,0008), a list of its values.
    Column("image_type", JSON, nullable=False),
    Column("instance_number", Integer),
    Column("number_of_frames", Integer, nullable=False),
    # What a viewer lists series and images by; of images only, and where it was given.
    Column("series_number", Integer),
    Column("series_description", String(64), nullable=False, server_default=text("''")),
    Column("rows", Integer),
    Column("columns", Integer),
    # False for what no model reads (presentation states, key objects, SR, PDF) and what we made.
    Column("makes_version", Boolean, nullable=False),
    # The study version it belongs to.
    Column("study_version", Integer, nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("called_ae_title", String(16), nullable=False),
    Column("key", String(255), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # Of the data set as it came, without File Meta Information.
    Column("digest", String(64), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    # Its sender gave it DIMSE priority HIGH.
    Column("urgent", Boolean, nullable=False, server_default=false()),
    # A person said that it does not belong to its study: no model reads it.
    Column("excluded_at", UtcDateTime),
    # Its bytes are gone, because its case had ended long enough ago.
    Column("purged_at", UtcDateTime),
    Index("ix_instance_study", "study_instance_uid", "series_instance_uid"),
)

duplicate_instance = Table(
    "duplicate_instance",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("called_ae_title", String(16), nullable=False, server_default=text("''")),
    Column("key", String(255), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    # encoding, attributes, content or uncompared; null until the two have been compared.
    Column("difference", String(16)),
    Column("purged_at", UtcDateTime),
)
"""Kept beside the first: the same SOP Instance UID with other bytes."""

conflict = Table(
    "conflict",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("study_instance_uid", String(64), nullable=False),
    # identity: an instance names another patient; update: the same instance again with other
    # patient or order attributes; instance: with other content.
    Column("kind", String(16), nullable=False),
    # The first instance that showed it.
    Column("sop_instance_uid", String(64), nullable=False),
    # Of the newcomer's data set.
    Column("digest", String(64), nullable=False),
    # Keyword to value: what was known when it was opened, and what the newcomer says.
    Column("known", JSON, nullable=False),
    Column("claimed", JSON, nullable=False),
    # Keywords of everything that differs.
    Column("differing", JSON, nullable=False),
    # Whether the case waits for the decision.
    Column("holds", Boolean, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    # keep, replace or exclude.
    Column("decision", String(16)),
    Column("decided_by", String(64)),
    Column("settled_at", UtcDateTime),
    # The study version that the decision makes, if it makes one; it may be yet to come.
    Column("study_version", Integer),
    # How many decisions were taken back, because they could not be carried out.
    Column("unsettled", Integer, nullable=False, server_default=text("0")),
    Index("ix_conflict_study", "study_instance_uid"),
)
"""What contradicts a study, until a person has said which is right, and what they said."""

conflicting_instance = Table(
    "conflicting_instance",
    metadata,
    Column("conflict_id", Uuid, ForeignKey("conflict.id"), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True),
    # Of its data set: of ``instance`` where the conflict is about identity, else of the duplicate.
    Column("digest", String(64), primary_key=True),
)
"""Every instance that shows the same conflict: a person decides about all of them at once."""

open_association = Table(
    "open_association",
    metadata,
    # Of the association, and of the receiving process that has it.
    Column("id", String(36), primary_key=True),
    Column("process", String(100), nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    # What it has last sent to.
    Column("study_instance_uid", String(64), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Index("ix_open_association_study", "study_instance_uid"),
)
"""Associations that hold a study open: it is not complete while one may go on sending to it."""

performed_procedure_step = Table(
    "performed_procedure_step",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    # IN PROGRESS, COMPLETED or DISCONTINUED (PS3.3 C.4.14).
    Column("status", String(16), nullable=False),
    # Code value of (0040,0281); empty where none was given.
    Column("discontinuation_reason_code", String(16), nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    # SOP Instance UIDs that (0040,0340) lists.
    Column("sop_instance_uids", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
)
"""What modalities say of the procedures they perform (PS3.4 Annex F)."""

step_of_study = Table(
    "step_of_study",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column(
        "step_sop_instance_uid",
        String(64),
        ForeignKey("performed_procedure_step.sop_instance_uid"),
        primary_key=True,
    ),
)
"""A step may be of several studies, and a study of several steps; nothing need have arrived."""

early_conflict = Table(
    "early_conflict",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    # What says so: a procedure step or a Key Object Selection.
    Column("sop_instance_uid", String(64), primary_key=True),
    # As ``study.conflicted`` will tell it.
    Column("reason", String(64), nullable=False),
    Column("noted_at", UtcDateTime, nullable=False),
)
"""What holds a study of which nothing has arrived yet; told as soon as something has."""

commitment = Table(
    "commitment",
    metadata,
    # Derived from who asked, the Transaction UID and what it was about.
    Column("id", Uuid, primary_key=True),
    # (0008,1195), unique within the AE that asked, or it is used twice.
    Column("transaction_uid", String(64), nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("requested_at", UtcDateTime, nullable=False),
    # When the result is to be told next; null once it has been, or was given up.
    Column("due_at", UtcDateTime),
    # How often it was tried.
    Column("attempt", Integer, nullable=False),
    # When the peer acknowledged it.
    Column("told_at", UtcDateTime),
    Index("ix_commitment_due_at", "due_at"),
    Index("ix_commitment_transaction", "calling_ae_title", "transaction_uid"),
)
"""What we were asked to commit to (PS3.4 Annex J)."""

committed_instance = Table(
    "committed_instance",
    metadata,
    Column("commitment_id", Uuid, ForeignKey("commitment.id"), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("sop_class_uid", String(64), nullable=False),
    # (0008,1197); null where we committed.
    Column("failure_reason", Integer),
    # Not purged before; null where we did not commit.
    Column("kept_until", UtcDateTime),
    Index("ix_committed_instance_sop_instance_uid", "sop_instance_uid"),
)

removal = Table(
    "removal",
    metadata,
    # Of a file that no row claims any more, and that is to be removed.
    Column("key", String(255), primary_key=True),
    Column("since", UtcDateTime, nullable=False),
    # When it is tried again, where it could not be removed; else null.
    Column("due_at", UtcDateTime),
)
"""Files on their way out: what was purged is claimed by no row before its file goes."""

quarantined_instance = Table(
    "quarantined_instance",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("reason", String(200), nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("key", String(255), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    # What the command said it was, so that it can be received once more.
    Column("sop_class_uid", String(64), nullable=False, server_default=text("''")),
    Column("sop_instance_uid", String(64), nullable=False, server_default=text("''")),
    Column("transfer_syntax_uid", String(64), nullable=False, server_default=text("''")),
    Column("called_ae_title", String(16), nullable=False, server_default=text("''")),
    # released or discarded; null while nobody has decided.
    Column("outcome", String(16)),
    Column("settled_at", UtcDateTime),
)
