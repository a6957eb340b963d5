"""The private servers do what the other tests rely on."""

import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pika
import psycopg2
import pydicom
import pytest
from pydicom.data import get_testdata_file
from sqlalchemy import create_engine, inspect

from tests.conftest import CHECKOUT
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.postgresql import PostgreSQL
from tests.peers.processes import PeerFailed, ServerProcess, wait_until
from tests.peers.rabbitmq import RabbitMQ


def table_names(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_both_databases_have_the_same_tables(postgresql_database_url: str, sqlite_url: str) -> None:
    in_postgresql = table_names(postgresql_database_url)

    assert "study" in in_postgresql
    assert in_postgresql == table_names(sqlite_url)


def test_what_one_test_writes_another_does_not_see(
    postgresql: PostgreSQL, postgresql_template: str
) -> None:
    one, other = (postgresql.create_database(postgresql_template) for _ in range(2))
    dsn = one.replace("+psycopg2", "")
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE mine ()")

    assert "mine" in table_names(one)
    assert "mine" not in table_names(other)


def test_a_restarted_broker_keeps_a_confirmed_message(
    rabbitmq: RabbitMQ, rabbitmq_vhost_url: str
) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq_vhost_url))) as connection:
        channel = connection.channel()
        channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        channel.basic_publish("", "kept", b"x", pika.BasicProperties(delivery_mode=2))

    rabbitmq.stop()
    rabbitmq.start()

    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq_vhost_url))) as connection:
        method, _, body = connection.channel().basic_get("kept", auto_ack=True)
    assert method is not None
    assert body == b"x"
    assert [queue["name"] for queue in rabbitmq.queues(rabbitmq_vhost_url)] == ["kept"]


def test_orthanc_routes_what_it_is_given_to_another_archive() -> None:
    ct = Path(get_testdata_file("CT_small.dcm", download=False))
    study = pydicom.dcmread(ct, stop_before_pixels=True).StudyInstanceUID
    with Orthanc(ae_title="ROUTER") as router, Orthanc(ae_title="PACS") as pacs:
        router.add_modality("pacs", Modality("PACS", pacs.dicom_port))
        router.route_everything_to("pacs")

        router.upload(ct)

        wait_until(lambda: pacs.count_instances(study), what="routed")
        assert pacs.count_instances(study, "CT") == 1
        assert pacs.count_instances(study, "SR") == 0


def test_a_killed_test_run_leaves_no_server_behind(tmp_path: Path) -> None:
    test_run = (
        "import pathlib, sys\n"
        "from tests.peers.processes import ServerProcess\n"
        "server = ServerProcess(['sleep', '600'], log=pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        # From here on the kernel knows whom to kill.
        "comm = pathlib.Path(f'/proc/{server.pid}/comm')\n"
        "while comm.read_text() != 'sleep\\n': pass\n"
        "print(server.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", test_run, str(tmp_path / "log")],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        server_pid = int(run.stdout.readline())
        run.kill()

    def is_gone() -> bool:
        with suppress(ProcessLookupError):
            os.kill(server_pid, 0)
            state = Path(f"/proc/{server_pid}/stat").read_text().rpartition(")")[2].split()[0]
            return state == "Z"
        return True

    wait_until(is_gone, what="the server's end")


def test_a_server_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    server = ServerProcess(["sh", "-c", "echo no license; exit 3"], log=tmp_path / "log")
    server.start()

    with pytest.raises(PeerFailed, match="ended with 3:\nno license"):
        server.wait_until_ready(lambda: False)


def test_stop_asks_first_and_kills_afterwards(tmp_path: Path) -> None:
    polite = ServerProcess(["sleep", "600"], log=tmp_path / "polite")
    stubborn = ServerProcess(
        ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], log=tmp_path / "stubborn"
    )
    polite.start()
    stubborn.start()
    wait_until(lambda: "up" in stubborn.log_tail(), what="the trap")

    assert polite.stop() == -signal.SIGTERM
    assert stubborn.stop(timeout_s=0.2) == -signal.SIGKILL
