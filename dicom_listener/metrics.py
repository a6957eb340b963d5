"""What the listener counts: by status and outcome, never by UID, AE title or person."""

from prometheus_client import Counter, Gauge, Histogram

INSTANCES = Counter(
    "countersign_instances_answered", "C-STORE requests answered, by DIMSE status.", ["status"]
)
ASSOCIATIONS = Counter(
    "countersign_associations_ended", "Associations that ended, by how.", ["outcome"]
)
REJECTIONS = Counter(
    "countersign_associations_rejected", "Associations that were not accepted, by why.", ["reason"]
)
STORE_SECONDS = Histogram(
    "countersign_store_seconds",
    "Time from the command of a C-STORE to its answer, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
STORE_FREE_BYTES = Gauge(
    "countersign_store_free_bytes",
    "What is free where instances are kept.",
    multiprocess_mode="mostrecent",
)
PURGED = Counter(
    "countersign_instances_purged",
    "Received instances that were let go of: when due, or early because room was short.",
    ["reason"],
)
SWEPT = Counter(
    "countersign_files_swept",
    "Received files that no row claimed: entered, or moved aside and later removed.",
    ["outcome"],
)
COMMITMENTS = Counter(
    "countersign_commitments", "Instances that we were asked to commit to, by outcome.", ["outcome"]
)
COMMITMENT_REPORTS = Counter(
    "countersign_commitment_reports",
    "Results of storage commitment told on associations of our own, by outcome.",
    ["outcome"],
)
