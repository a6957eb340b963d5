"""What is counted and measured. Labels are queues, outcomes and kinds: no UIDs, no persons."""

from __future__ import annotations

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector
from typing_extensions import override

from service_runtime.database import Database
from service_runtime.errors import TransientError
from service_runtime.messaging import backlog, dead_letters

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The library's own variable: a folder in which processes of one machine share metrics."""

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

MESSAGES_CONSUMED = Counter(
    "countersign_messages_consumed", "Messages whose handling ended.", ["queue", "outcome"]
)
HANDLER_SECONDS = Histogram(
    "countersign_handler_seconds",
    "Time from taking a message to its outcome.",
    ["queue"],
    buckets=SECONDS_BUCKETS,
)
MESSAGES_PUBLISHED = Counter(
    "countersign_messages_published", "Messages that the broker confirmed.", ["routing_key"]
)
"""Empty in the embedded form, which publishes nothing."""


class MessagingCollector(Collector):
    """Asks the database, at each scrape, what waits and what is dead."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @override
    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the gauges; none while the database is away, rather than an old number."""
        waiting = GaugeMetricFamily(
            "countersign_deliveries_waiting",
            "Deliveries in the database: due, delayed or being handled.",
            labels=["queue"],
        )
        dead = GaugeMetricFamily(
            "countersign_dead_letters", "Dead letters nobody has resolved.", labels=["queue"]
        )
        try:
            for queue, count in backlog.waiting(self._database).items():
                waiting.add_metric([queue], count)
            for queue, count in dead_letters.open_by_queue(self._database).items():
                dead.add_metric([queue], count)
        except TransientError:
            return
        yield waiting
        yield dead


def exposition(database: Database | None = None) -> bytes:
    """Return all metrics as text: of this process, or of all that share the folder."""
    registry: CollectorRegistry = REGISTRY
    if os.environ.get(MULTIPROCESS_DIR):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    text = generate_latest(registry)
    if database is not None:
        asked = CollectorRegistry()
        asked.register(MessagingCollector(database))
        text += generate_latest(asked)
    return text
