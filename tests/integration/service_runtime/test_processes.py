"""Processes that consume: killed, hanging, poisoned, told to leave, left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from message_contracts import topology
from message_contracts.ingest import StudyOpened
from service_runtime import heartbeat
from service_runtime.database import Database
from service_runtime.messaging import backlog, dead_letters, outbox
from service_runtime.process import EXIT_FAILED, SUPERVISOR_FD
from service_runtime.process_identity import token_of
from tests.integration.service_runtime.conftest import Consume
from tests.integration.service_runtime.consuming_service import CLAIM_LIMIT, POISON
from tests.integration.service_runtime.journeys import (
    Form,
    consumer_process,
    effects,
    noted,
    numbered,
    send_all,
    study_opened,
    wait_for_effects,
)
from tests.peers.processes import ServerProcess, wait_until
from tests.peers.rabbitmq import RabbitMQ

SERVICE = "consuming_service"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def started(process: ServerProcess, stack: ExitStack) -> ServerProcess:
    process.start()
    stack.callback(process.kill)
    return process


def is_ready(database: Database) -> bool:
    beats = heartbeat.fresh(database, datetime.now(UTC))
    return heartbeat.readiness_of(beats, [SERVICE])[SERVICE] == ""


def release_leases(form: Form, database: Database, token: str) -> None:
    """Do what a supervisor does once a child is dead."""
    if not form.via_broker:
        with database.transaction() as transaction:
            outbox.release_leases_of(transaction, token)


@pytest.mark.slow
def test_consumers_killed_at_random_lose_nothing_and_repeat_nothing(
    form: Form, database: Database, tmp_path: Path, stack: ExitStack, messaging: object
) -> None:
    chance = random.Random(os.environ["COUNTERSIGN_TEST_SEED"])
    count, kills = 400, 6
    processes = [started(consumer_process(form, tmp_path / f"{name}.log"), stack) for name in "ab"]
    wait_until(lambda: is_ready(database), what="a consumer is ready")

    sent = []
    for kill in range(kills):
        for envelope in numbered(count // kills):
            sent.append(envelope)
            send_all(database, envelope)
        done = chance.randrange(len(sent) // 2, len(sent))
        wait_until(lambda least=done: len(effects(database)) >= least, what="progress")
        victim = processes[kill % 2]
        token = token_of(victim.pid)
        victim.kill()
        release_leases(form, database, token)
        victim.start()

    assert wait_for_effects(database, len(sent)) == {str(each.id): 1 for each in sent}
    wait_until(lambda: backlog.waiting(database) == {}, what="no delivery is left")
    assert dead_letters.list_open(database) == []


def test_a_message_that_kills_its_consumers_is_given_up_and_the_others_get_past_it(
    form: Form, database: Database, tmp_path: Path, stack: ExitStack, messaging: object
) -> None:
    poison = study_opened(666)
    others = list(numbered(8))
    send_all(database, poison, *others)
    process = started(consumer_process(form, tmp_path / "log"), stack)

    for _ in range(CLAIM_LIMIT + 1):
        token = token_of(process.pid)
        if (
            wait_until(
                lambda: not process.is_running() or dead_letters.list_open(database),
                what="the consumer dies, or has given the message up",
            )
            and process.is_running()
        ):
            break
        release_leases(form, database, token)
        process.start()

    wait_until(lambda: backlog.waiting(database) == {}, what="nothing waits")
    expected = {str(each.id) for each in others}
    if form.via_broker:
        # The broker counts against all that it had handed over; a few may be given up with it.
        wait_until(
            lambda: len(effects(database)) + len(dead_letters.list_open(database)) == 9,
            what="every message is handled or dead",
        )
        expected = set(effects(database))
    assert effects(database) == dict.fromkeys(expected, 1)
    dead = {each.message_id for each in dead_letters.list_open(database)}
    assert dead == {str(poison.id), *(str(each.id) for each in others)} - expected
    assert poison.data(StudyOpened).study_instance_uid == POISON


def test_sigterm_finishes_what_is_being_handled_and_leaves_the_rest(
    form: Form, database: Database, tmp_path: Path, stack: ExitStack, messaging: object
) -> None:
    started_file = tmp_path / "started"
    process = started(
        consumer_process(
            form,
            tmp_path / "log",
            COUNTERSIGN_HANDLING_S="0.4",
            COUNTERSIGN_STARTED_FILE=str(started_file),
        ),
        stack,
    )
    sent = list(numbered(50))
    send_all(database, *sent)
    wait_until(started_file.exists, what="handling has begun")

    process.signal(signal.SIGTERM)
    process.signal(signal.SIGTERM)
    exit_code = process.stop()

    assert exit_code == 0
    handled = effects(database)
    assert 1 <= len(handled) < 50
    assert set(handled.values()) == {1}
    assert not is_ready(database)
    # Nobody waits for a lease: another consumer has the rest at once.
    started(consumer_process(form, tmp_path / "log"), stack)
    assert wait_for_effects(database, 50) == {str(each.id): 1 for each in sent}


def test_a_service_drains_when_its_supervisor_is_gone(
    form: Form, database: Database, stack: ExitStack
) -> None:
    if form.via_broker:
        pytest.skip("the distributed form has no supervisor of ours")
    read, write = os.pipe()
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.service_runtime.consuming_service"],
            env=form.environment(**{SUPERVISOR_FD: str(read)}),
            pass_fds=[read],
            stderr=subprocess.DEVNULL,
        )
    )
    stack.callback(process.kill)
    os.close(read)
    wait_until(lambda: is_ready(database), what="the consumer is ready")

    os.close(write)

    assert process.wait(timeout=60) == 0


def test_a_handler_that_hangs_ends_its_process_and_counts_as_an_attempt(
    form: Form, database: Database, tmp_path: Path, stack: ExitStack, messaging: object
) -> None:
    envelope = study_opened()
    send_all(database, envelope)
    process = started(
        consumer_process(
            form,
            tmp_path / "log",
            COUNTERSIGN_HANDLING_S="600",
            COUNTERSIGN_HANDLER_DEADLINE_S="0.5",
        ),
        stack,
    )

    wait_until(lambda: not process.is_running(), what="the process has left")

    assert process.returncode == EXIT_FAILED
    started(consumer_process(form, tmp_path / "log"), stack)
    assert wait_for_effects(database, 1) == {str(envelope.id): 1}


@pytest.mark.parametrize("form", ["rabbitmq"], indirect=True)
def test_a_broker_that_stops_and_starts_again_loses_nothing(
    rabbitmq: RabbitMQ, database: Database, consume: Consume
) -> None:
    before, meanwhile, after = (list(numbered(count)) for count in (40, 40, 20))
    consume({topology.WORKFLOW: noted})
    send_all(database, *before)
    wait_for_effects(database, 1)

    rabbitmq.stop()
    try:
        send_all(database, *meanwhile)
    finally:
        rabbitmq.start()
    send_all(database, *after)

    everything = {str(each.id): 1 for each in (*before, *meanwhile, *after)}
    assert wait_for_effects(database, 100) == everything
