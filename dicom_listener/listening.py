"""The listener: a parent and its processes.

The parent owns the listening sockets and forks the receiving processes and the one that announces
complete studies. Whichever dies is started again; the sockets, and whoever waits in their queues,
stay.
"""

import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pydicom
import structlog

from dicom_listener import index_messages
from dicom_listener.announcer import Announcer
from dicom_listener.announcing import announce
from dicom_listener.application_entities import look_up
from dicom_listener.association_count import AssociationCount, AssociationsOfProcess
from dicom_listener.commitment_report import Reporter
from dicom_listener.commitment_telling import Teller, Telling
from dicom_listener.completion import Limits
from dicom_listener.deciding import intake_handling
from dicom_listener.entered import follow_up
from dicom_listener.handlers import Intake
from dicom_listener.index import OwnIndex
from dicom_listener.index_queue import IndexQueue
from dicom_listener.indexing import Indexing
from dicom_listener.negotiation import FrontDoor, application_entity
from dicom_listener.peers import Peer
from dicom_listener.pre_fork import Body, PreFork
from dicom_listener.purging import Purge, Purging
from dicom_listener.reception import InstanceKeeper
from dicom_listener.recovering import Recovering, recovery_of
from dicom_listener.services import event_receivers, normalized_services
from dicom_listener.serving import Secure, serve
from dicom_listener.settings import MEBIBYTE, ListenerSettings
from dicom_listener.storage_scp import Service
from imaging_store.instances import FileInstanceStore, open_instance_store
from imaging_store.retention import Retention
from service_runtime.database import Database
from service_runtime.dicom_tls import (
    BrokenTlsFiles,
    Reloading,
    TlsFiles,
    client_context,
    server_context,
)
from service_runtime.process import SUPERVISOR_FD, service_of
from service_runtime.settings import EXIT_CODE, load
from service_runtime.telemetry import log as logs

log = structlog.get_logger()

_DRAIN_TIMEOUT_S = 15.0
_BACKLOG = 128
_DESCRIPTORS_OF_ASSOCIATION = 3
_OTHER_DESCRIPTORS = 256
_now = partial(datetime.now, UTC)


def run() -> None:
    """Run until told to stop."""
    settings = load(ListenerSettings)
    logs.configure("dicom_listener", settings.log_level)
    # Negotiation makes two thousand UIDs an association, of which most are the Standard's own.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    allow_descriptors(settings.max_associations)
    store = open_instance_store(settings.store, reserve_bytes=settings.store_reserve_mib * MEBIBYTE)
    listeners = listeners_of(settings)
    count = AssociationCount(settings.receiving_processes, settings.max_associations)
    discarded = store.discard_unfinished()
    for listener, secure in listeners.items():
        log.info(
            "listener.started" if secure is None else "listener.secured",
            host=settings.dicom_host,
            port=listener.getsockname()[1],
            ae_title=settings.ae_title,
            count=discarded,
        )

    def on_death(process: int) -> None:
        if process < settings.receiving_processes:
            count.clear(process)
            store.discard_unfinished()

    index = index_messages.listen()
    # Held open by whoever receives, so that who enters what they receive outlives them.
    over, receives = os.pipe()

    def stop() -> None:
        close_all(listeners)
        os.close(receives)

    bodies = [
        receiving(settings, store, listeners, count.of_process(process), index)
        for process in range(settings.receiving_processes)
    ]
    crew = PreFork(
        [
            *bodies,
            entering(settings, store, [*listeners], index, over, receives),
            announcing(settings, store, [*listeners, index], receives),
        ],
        on_death=on_death,
        on_stop=stop,
        drain_timeout_s=_DRAIN_TIMEOUT_S,
    )
    # What is there now stays for good. Left out of every collection it is shared by all processes,
    # and what an association leaves behind is soon a large part of the rest, and collected: the
    # second collection has the interpreter count that rest anew (it had counted what is frozen).
    gc.collect()
    gc.freeze()
    gc.collect()
    crew.run(stop_descriptors())
    log.info("listener.stopped")


def allow_descriptors(associations: int) -> None:
    """Let one process have as many files and sockets open as all associations need at most.

    An association has its connection, a file and for a moment its folder. Where the hard limit is
    lower it is what there is: who finds no descriptor waits in the queue.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OTHER_DESCRIPTORS + _DESCRIPTORS_OF_ASSOCIATION * associations
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def listeners_of(settings: ListenerSettings) -> dict[socket.socket, Secure | None]:
    """Return the listening sockets that all receiving processes share, and what secures each."""
    listeners: dict[socket.socket, Secure | None] = {}
    if settings.dicom_plain:
        listeners[listen(settings.dicom_host, settings.dicom_port, "DICOM_PORT")] = None
    files = TlsFiles.of(settings)
    if files is not None:
        try:
            # Made here, so that a process that is forked later has what worked last.
            contexts = Reloading(files, server_context)
        except BrokenTlsFiles as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(EXIT_CODE) from None
        port = settings.dicom_tls_port
        listeners[listen(settings.dicom_host, port, "DICOM_TLS_PORT")] = contexts.context
    return listeners


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Return a listening socket."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        sys.stderr.write(
            f"COUNTERSIGN_DICOM_HOST, COUNTERSIGN_{setting}: cannot listen: {error.strerror}\n"
        )
        raise SystemExit(1) from None
    listener.listen(_BACKLOG)
    return listener


def close_all(listeners: Iterable[socket.socket]) -> None:
    """Listen no more, as far as this process goes."""
    for listener in listeners:
        listener.close()


def receiving(
    settings: ListenerSettings,
    store: FileInstanceStore,
    listeners: Mapping[socket.socket, Secure | None],
    count: AssociationsOfProcess,
    index: socket.socket,
) -> Body:
    """Return the work of a receiving process."""
    address = index.getsockname()

    def receive(wake: int) -> None:
        index.close()
        database = Database(settings.database, via_relay=settings.via_broker)
        follow = partial(follow_up, database, store, _now)
        with IndexQueue(address, OwnIndex(database), follow, _now) as queue:
            service = Service(
                ae=application_entity(settings.ae_title),
                keep=InstanceKeeper(store, database, queue, _now),
                front_door=FrontDoor(
                    ae_title=settings.ae_title,
                    site=site_of(settings),
                    look_up=partial(look_up, database),
                    count=count,
                    services=normalized_services(settings, database, store, _now),
                    receivers=event_receivers(database, _now),
                ),
                wake=wake,
                acse_timeout_s=settings.acse_timeout_s,
                idle_timeout_s=settings.association_idle_timeout_s,
                dimse_timeout_s=settings.dimse_timeout_s,
            )
            serve(listeners, service)

    return receive


def site_of(settings: ListenerSettings) -> Peer:
    """Return what holds for a peer of which nothing is listed."""
    return Peer(
        ae_title="",
        quiet_period=timedelta(seconds=settings.quiet_period_s),
        default_issuer_of_patient_id=settings.default_issuer_of_patient_id,
        zone=ZoneInfo(settings.time_zone),
    )


def entering(
    settings: ListenerSettings,
    store: FileInstanceStore,
    listeners: Sequence[socket.socket],
    index: socket.socket,
    over: int,
    receives: int,
) -> Body:
    """Return the work of the process that enters what is received, until nobody receives.

    It also enters what processes that were killed have left in the store.
    """

    def enter(_: int) -> None:
        close_all(listeners)
        os.close(receives)
        database = Database(settings.database, via_relay=settings.via_broker)
        recovery = recovery_of(database, store, site_of(settings), settings.ae_title, _now)
        with Recovering(recovery) as recovering:
            Indexing(OwnIndex(database), index, recovering.look).serve(over)

    return enter


def announcing(
    settings: ListenerSettings,
    store: FileInstanceStore,
    listeners: Sequence[socket.socket],
    receives: int,
) -> Body:
    """Return the work of the process that announces complete studies.

    It also carries out what people decide, purges what may go, tells peers what we have committed
    to, tells how the listener is, and publishes what its processes have to say.
    """

    def body(wake: int) -> None:
        close_all(listeners)
        os.close(receives)
        limits = Limits(
            association_timeout=timedelta(seconds=settings.association_idle_timeout_s),
            deadline=timedelta(seconds=settings.completion_deadline_s),
        )
        with service_of("dicom_listener", settings, threading.Event()) as service:
            site = site_of(settings)
            handling = intake_handling(service.database, store, site, _now)
            purge = Purge(service.database, store, Retention.of(settings), _now)
            recovery = recovery_of(service.database, store, site, settings.ae_title, _now)
            files = TlsFiles.of(settings)
            report = Reporter(
                partial(application_entity, settings.ae_title),
                None if files is None else partial(client_context, files),
            )
            with (
                Intake(service.messaging, handling),
                Purging(purge, recovery.enter),
                Telling(Teller(service.database, report, _now)),
            ):
                service.ready()
                announcer = Announcer(service.database, limits)
                announce(service.database, announcer, wake, _now, recovery.run_lately)

    return body


def stop_descriptors() -> list[int]:
    """Return what becomes readable on SIGTERM and SIGINT, and when the supervisor is gone."""
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def stop(*_: object) -> None:
        with suppress(BlockingIOError):
            os.write(writable, b"\0")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    supervisor = os.environ.get(SUPERVISOR_FD)
    return [readable, int(supervisor)] if supervisor else [readable]
