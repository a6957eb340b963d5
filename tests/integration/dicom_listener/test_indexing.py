"""Whoever receives is listened to, nobody else, and whichever process dies it goes on."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from dicom_listener import index_messages, indexing
from dicom_listener.arrivals import Outcome
from dicom_listener.index import OwnIndex
from dicom_listener.index_queue import IndexQueue
from imaging_store.schema.ingest import instance, study
from message_contracts.ingest import StudyReceived
from service_runtime.database import Database
from tests.integration.dicom_listener.indexed import an_arrival, now, served, serving
from tests.integration.dicom_listener.listener import (
    Listener,
    a_slice,
    associate,
    send,
    sendable,
    store,
)
from tests.peers.processes import wait_until


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_nobody_else_is_listened_to(database: Database) -> None:
    with served(database) as installation:
        code = (
            "import os, socket, sys; os.setuid(65534);"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
            f"s.connect({installation.queue._address!r});"
            "s.settimeout(30); print(s.recv(10))"
        )
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
    assert told.stdout.strip() == "b''"


def test_whichever_process_dies_everything_goes_on(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener()
    indexing_process = listener.children[-2]
    assert send(listener.port, [sendable(a_slice())]) == [0]

    os.kill(indexing_process, 9)

    assert send(listener.port, [sendable(a_slice()) for _ in range(3)]) == [0, 0, 0]
    wait_until(lambda: len(listener.rows(instance)) == 4, what="the instances")
    assert indexing_process not in listener.living_children()


def test_what_was_answered_for_is_entered_though_the_process_that_received_it_was_killed(
    start_listener: Callable[..., Listener],
) -> None:
    # Longer than it takes to find out what the dead have left.
    listener = start_listener(quiet_period_s=10)
    *receiving, indexing_process, _ = listener.children
    os.kill(indexing_process, signal.SIGSTOP)
    sent = [sendable(a_slice(StudyInstanceUID="1.2.3")) for _ in range(3)]
    association = associate(listener.port, (sent[0].sop_class_uid, sent[0].transfer_syntax_uid))
    assert [store(association, each).Status for each in sent] == [0, 0, 0]
    assert not listener.rows(instance)

    for process in receiving:
        os.kill(process, signal.SIGKILL)
    os.kill(indexing_process, signal.SIGCONT)

    wait_until(lambda: len(listener.rows(instance)) == 3, what="the instances")
    association.abort()
    wait_until(lambda: listener.messages(StudyReceived), what="the study")
    (received,) = listener.messages(StudyReceived)
    assert received.instance_count == 3


def test_what_was_answered_for_is_entered_though_everything_was_killed(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener()
    os.kill(listener.children[-2], signal.SIGSTOP)
    sent = sendable(a_slice())
    association = associate(listener.port, (sent.sop_class_uid, sent.transfer_syntax_uid))
    assert store(association, sent).Status == 0

    for process in [listener.process.pid, *listener.children]:
        os.kill(process, signal.SIGKILL)
    association.abort()
    wait_until(lambda: not listener.process.is_running(), what="the end")
    assert not listener.rows(instance)
    listener.start()

    # Before anything is announced: the quiet period may be long over.
    wait_until(lambda: listener.messages(StudyReceived), what="the study")
    (row,) = listener.rows(instance)
    assert (row.sop_instance_uid, row.calling_ae_title) == (sent.sop_instance_uid, "MODALITY")
    assert row.size_bytes == len(sent.data)


def test_the_socket_is_no_file() -> None:
    listener = index_messages.listen()

    assert listener.family == socket.AF_UNIX
    assert listener.getsockname().startswith(b"\0")
    listener.close()


def test_however_many_connect_at_once_all_are_served(database: Database) -> None:
    listener = index_messages.listen()
    for _ in range(sys.getrecursionlimit()):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(listener.getsockname())
    queue = IndexQueue(listener.getsockname(), OwnIndex(database), lambda *_: None, now)
    with serving(database, listener), queue:
        assert queue.add(an_arrival()) is Outcome.NEW


class Full(socket.socket):
    """A listening socket of a process that has no descriptor left, for a while."""

    left = 2 * sys.getrecursionlimit()

    @override
    def accept(self) -> tuple[socket.socket, Any]:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_who_cannot_be_accepted_now_is_accepted_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_WAIT_AFTER_ERROR_S", 0)
    listener = index_messages.listen()
    full = Full(listener.family, listener.type, fileno=listener.detach())
    queue = IndexQueue(full.getsockname(), OwnIndex(database), lambda *_: None, now)
    with capture_logs(), serving(database, full), queue:
        assert queue.add(an_arrival()) is Outcome.NEW


def test_a_study_that_waited_for_the_power_is_announced_whole(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener(quiet_period_s=1)
    first, *others = [sendable(a_slice(StudyInstanceUID="1.2.3")) for _ in range(3)]
    association = associate(listener.port, (first.sop_class_uid, first.transfer_syntax_uid))
    assert store(association, first).Status == 0
    wait_until(lambda: listener.rows(instance), what="the first instance")
    os.kill(listener.children[-2], signal.SIGSTOP)
    assert [store(association, each).Status for each in others] == [0, 0]

    for process in [listener.process.pid, *listener.children]:
        os.kill(process, signal.SIGKILL)
    association.abort()
    quiet_until = listener.rows(study)[0].quiet_until
    wait_until(lambda: datetime.now(UTC) > quiet_until, what="the quiet")
    wait_until(lambda: not listener.process.is_running(), what="the end")
    listener.start()

    wait_until(lambda: listener.messages(StudyReceived), what="the study")
    (received,) = listener.messages(StudyReceived)
    assert received.instance_count == 3
