"""Structured logs on standard error: a line of JSON per event, with no key that is not listed.

A key that is not in the list is dropped and counted, so that no patient's name slips in by way of
a new key. Exceptions show class and place; the text of those that are not ours may quote data.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from uuid import UUID

import structlog
from prometheus_client import Counter
from typing_extensions import override

from service_runtime.errors import CountersignError

ALLOWED_KEYS = frozenset(
    """
    event level timestamp service process_id logger
    correlation_id causation_id message_id message_type trace_id span_id
    queue outcome attempt attempts delay_s duration_s deadline_s timeout_s claims dead_letter_id
    error reason reason_code where faults setting
    study_instance_uid series_instance_uid sop_instance_uid sop_class_uid transfer_syntax_uid
    transaction_uid
    case_id case_version study_version status stage delivery trigger decision completion
    model model_version device_uid weights_sha256 urgency
    association_id ae_title calling_ae_title called_ae_title host port peer destination
    status_code error_comment method route resource_type user_id role
    count instance_count frame_count image_count size_bytes batch_size rate_per_s
    key path exit_code signal restarts child broker database store dropped_keys version
    """.split()  # noqa: SIM905 - a line each would be a page
)
"""Study, Series and SOP Instance UIDs and case ids are what one searches by.

No name, no Patient ID, no birth date, no accession number, no free text. ``path`` is a file of
ours, ``route`` a template.
"""

MAX_TEXT = 500
_EVENT = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$")
_DROPPED = Counter("countersign_log_keys_dropped", "Keys of log lines that are not in the list.")
_FRAMES = 12

Event = MutableMapping[str, Any]


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Have this process log to ``stream`` (standard error by default), named ``service``."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    out = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _Named(service),
            _exception_without_data,
            only_allowed,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryHandler()]
    # Libraries speak of the wire at info and debug; of their trouble at warning.
    root.setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(True)


@contextmanager
def bound(**values: object) -> Iterator[None]:
    """Have every line in this block carry ``values``."""
    with structlog.contextvars.bound_contextvars(**values):
        yield


def describe(error: BaseException) -> str:
    """Return what may be told of an error: the text of ours, class and place of any other."""
    if isinstance(error, CountersignError):
        return str(error)[:MAX_TEXT] or type(error).__name__
    places = _places(error.__traceback__)
    return f"{type(error).__name__} at {places[-1]}" if places else type(error).__name__


def only_allowed(_logger: object, _method: str, event: Event) -> Event:
    """Keep listed keys and plain values; count what was dropped (a structlog processor)."""
    kept: dict[str, Any] = {}
    dropped = 0
    for key, value in event.items():
        if key in ALLOWED_KEYS:
            kept[key] = _plain(value)
        else:
            dropped += 1
    if not _EVENT.match(str(kept.get("event"))):
        kept["event"] = "log.unnamed"
        dropped += 1
    if dropped:
        kept["dropped_keys"] = dropped
        _DROPPED.inc(dropped)
    return kept


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | UUID | Path):
        return str(value)[:MAX_TEXT]
    if isinstance(value, Mapping):
        return {str(key)[:MAX_TEXT]: _plain(each) for key, each in list(value.items())[:50]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in list(value)[:50]]
    return type(value).__name__


class _Named:
    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _logger: object, _method: str, event: Event) -> Event:
        return {"service": self._service, **event}


def _exception_without_data(_logger: object, _method: str, event: Event) -> Event:
    found = event.pop("exc_info", None)
    error = sys.exc_info()[1] if found is True else found
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = describe(error)
        event["where"] = _places(error.__traceback__)
    return event


def _places(trace: TracebackType | None) -> list[str]:
    return [
        f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(trace)[-_FRAMES:]
    ]


class _LibraryHandler(logging.Handler):
    """Tells that a library had something to say, where, and with which exception; not what."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        log = structlog.get_logger()
        log.log(
            record.levelno,
            "library.message",
            logger=record.name,
            where=[f"{record.module}:{record.lineno} {record.funcName}"],
            **({"error": describe(error)} if error else {}),
        )
