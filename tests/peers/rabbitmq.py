"""A private RabbitMQ node, with a virtual host per test."""

from __future__ import annotations

import os
import secrets
from typing import Any
from urllib.parse import quote

import httpx
from typing_extensions import override

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

USER = "countersign"

_CONFIGURATION = """\
listeners.tcp.1 = {loopback}:{port}
management.tcp.ip = {loopback}
management.tcp.port = {management_port}
management_agent.disable_metrics_collector = true
default_user = {user}
default_pass = {password}
loopback_users = none
log.console.level = warning
log.file = false
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
"""


class RabbitMQ(Peer):
    """A node of its own: name, ports, port mapper (epmd), cookie and data.

    Two nodes that shared a port mapper or a distribution port would find one another.
    Durable queues and persistent messages outlive ``stop`` and ``kill``, as in production, except
    that RabbitMQ 3.10 loses a quorum queue that was declared less than 2 s before a ``kill``.
    """

    def __init__(self) -> None:
        # /usr/sbin/rabbitmq-server is Debian's wrapper, for the system's own node only.
        server = require(
            newest("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"),
            "rabbitmq-server",
            "rabbitmq-server",
        )
        epmd = require(find_program("epmd"), "epmd", "erlang-base")
        self.port, self.management_port = free_port(), free_port()
        self._epmd_port, distribution_port = free_port(), free_port()
        self.password = secrets.token_urlsafe(12)
        folder = private_folder("rabbitmq")
        (folder / "rabbitmq.conf").write_text(
            _CONFIGURATION.format(
                loopback=LOOPBACK,
                port=self.port,
                management_port=self.management_port,
                user=USER,
                password=self.password,
            )
        )
        (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": f"countersign{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2"
            ),
            # Start the virtual machine in place of the script: signals reach it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        self.processes = [
            ServerProcess(
                [epmd, "-port", str(self._epmd_port), "-address", LOOPBACK],
                log=folder / "epmd.log",
                environment=environment,
            ),
            ServerProcess([server], log=folder / "server.log", environment=environment),
        ]
        self._management = self._client()

    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://{LOOPBACK}:{self.management_port}/api",
            auth=(USER, self.password),
            timeout=30,
            trust_env=False,
        )

    @override
    def kill(self) -> None:
        super().kill()
        self._management.close()
        self._management = self._client()

    @override
    def start(self) -> None:
        for process in self.processes:
            process.start()
        self.processes[-1].wait_until_ready(self._answers)

    def _answers(self) -> bool:
        try:
            return self._management.get("/health/checks/port-listener/" + str(self.port)).is_success
        except httpx.TransportError:
            return False

    def url(self, vhost: str = "/") -> str:
        """Return the AMQP URL of a virtual host."""
        return f"amqp://{USER}:{self.password}@{LOOPBACK}:{self.port}/{quote(vhost, safe='')}"

    def create_vhost(self) -> str:
        """Create an empty virtual host and return its AMQP URL."""
        vhost = f"test-{secrets.token_hex(6)}"
        self._management.put(f"/vhosts/{vhost}").raise_for_status()
        permissions = {"configure": ".*", "write": ".*", "read": ".*"}
        answer = self._management.put(f"/permissions/{vhost}/{USER}", json=permissions)
        answer.raise_for_status()
        return self.url(vhost)

    def delete_vhost(self, url: str) -> None:
        """Delete a virtual host, its queues and its connections."""
        self._management.delete(f"/vhosts/{url.rpartition('/')[2]}").raise_for_status()

    def queues(self, url: str) -> list[dict[str, Any]]:
        """Return what the node knows of the queues of a virtual host, each with its ``name``."""
        answer = self._management.get(f"/queues/{url.rpartition('/')[2]}")
        queues: list[dict[str, Any]] = answer.raise_for_status().json()
        return queues
