"""A real RabbitMQ for the session.

`OUTBOX_RABBITMQ_URL` names a server to use; without it one is started, in a container (see `container`) or as a
private node of Debian's `rabbitmq-server` in a temporary folder: its own ports, cookie and port mapper, on loopback
only, beside any node that runs on this machine.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiormq
from aiormq.exceptions import AMQPError
from yarl import URL

from .container import ServerContainer, container_image
from .process import LOOPBACK, ReservedPort, ServerFailed, ServerProcess, ServerUnavailable, listens, run
from .versions import note

ENVIRONMENT = "OUTBOX_RABBITMQ_URL"
NODE = "outbox@localhost"
COOKIE = ".erlang.cookie"
JOINING = f"""
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = {NODE}
"""
"""Lets a node without data join the cluster of the first one when it starts."""
FORGETTING = (
    "case erlang:function_exported(rabbit_db_cluster, forget_member, 2) of "
    "true -> rabbit_db_cluster:forget_member('{node}', false); "
    "false -> rabbit_mnesia:forget_cluster_node('{node}', false) end"
)
"""Takes a node that is down out of the cluster; before RabbitMQ 3.13 that was Mnesia's own."""

MAX_MESSAGE_BYTES = 512 * 1024
"""RabbitMQ's default is 16 MiB since 4.0, and 128 before: a burden for a test that goes beyond it."""

WATERMARK = "0.4"
"""Default of `vm_memory_high_watermark`: the part of the memory from which on publishers are blocked."""


class RabbitServer:
    """A RabbitMQ on which each test uses names of its own.

    Args:
        url: "amqp://user:password@host:port/vhost".
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.host = URL(url).host or LOOPBACK
        self.port = URL(url).port or 5672

    def url_through(self, address: str) -> str:
        """The same server for clients that connect to a proxy's "host:port"."""
        host, _, port = address.partition(":")
        return str(URL(self.url).with_host(host).with_port(int(port)))

    async def version(self) -> str:
        """RabbitMQ's version, as "4.3.6"."""
        async with aiormq.connect(self.url) as connection:
            told = connection.server_properties["version"]
            return told.decode() if isinstance(told, bytes) else str(told)

    @staticmethod
    def new_name() -> str:
        return f"test-{secrets.token_hex(6)}"


class OwnRabbit(RabbitServer, ABC):
    """A RabbitMQ of our own, for tests to break; keeps its port and its data through `stop` and `start`."""

    process: ServerProcess | ServerContainer

    def __init__(self) -> None:
        self._listener = ReservedPort()
        super().__init__(f"amqp://guest:guest@{LOOPBACK}:{self._listener.number}/")

    def start(self) -> None:
        """Start, or start again after `stop` or `process.kill`; returns when the server answers."""
        self.process.start(lambda: listens(self._listener.number) and run(self._answers()), timeout=90)

    def stop(self) -> None:
        """Stop cleanly: the clients are disconnected and refused until the next `start`."""
        self.process.stop(signal.SIGTERM, timeout=30)

    def close(self) -> None:
        """Stop for good."""
        self.process.close()
        self._listener.release()

    def write_down(self) -> None:
        """Write what was declared to disk, so that the node has it after ``process.kill``.

        RabbitMQ 3's Mnesia does so within two seconds. Until then a crash loses a durable queue with the messages in
        it, confirmed ones too (findings/rabbitmq_new_queue_after_crash.sh).
        """
        self.evaluate("catch mnesia:sync_log()")

    @contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """For as long as it is entered, the server blocks connections that publish."""
        self._set_watermark("0.00000001")
        try:
            yield
        finally:
            self._set_watermark(WATERMARK)

    def _set_watermark(self, share: str) -> None:
        self.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({share})")

    @abstractmethod
    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang expression on the node and return what it prints."""

    async def _answers(self) -> bool:
        try:
            async with aiormq.connect(self.url):
                return True
        except (OSError, AMQPError):
            return False


class EmbeddedRabbit(OwnRabbit):
    """A RabbitMQ node of Debian's package.

    Args:
        folder: an existing empty folder for everything the server writes.
        first: a running node to whose cluster this one is to belong.
        name: what it is called beside the first one.
    """

    def __init__(self, folder: Path, first: "EmbeddedRabbit | None" = None, name: str = "beside") -> None:
        scripts = _scripts()
        super().__init__()
        self._distribution = ReservedPort()
        self._mapped_port = ReservedPort() if first is None else first._mapped_port
        distribution, port_mapper = self._distribution.number, self._mapped_port.number
        self.node = NODE if first is None else f"{name}-{NODE}"
        self._home = folder
        self._is_first = first is None
        configuration = _configuration(self._listener.number)
        if first is not None:
            configuration += JOINING
            shutil.copy(first._home / COOKIE, folder / COOKIE)
        self._environment = {
            # Erlang keeps its cookie there.
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(port_mapper),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONF_ENV_FILE": str(_write(folder / "rabbitmq-env.conf", "")),
            "RABBITMQ_CONFIG_FILE": str(_write(folder / "rabbitmq.conf", configuration)),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(_write(folder / "enabled_plugins", "[].\n")),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_MNESIA_BASE": str(folder),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Then the script becomes the server, instead of staying its parent.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        self.process = ServerProcess(["env", *variables, str(scripts / "rabbitmq-server")], folder)
        # Without one of ours on its port, Erlang would start a port mapper that stays for ever.
        (folder / "epmd").mkdir()
        mapper = ServerProcess(["epmd", "-port", str(port_mapper), "-address", LOOPBACK], folder / "epmd")
        self._port_mapper = mapper if first is None else first._port_mapper

    def start(self) -> None:
        if not self._port_mapper.alive:
            self._port_mapper.start(lambda: listens(int(self._environment["ERL_EPMD_PORT"])))
        super().start()

    def close(self) -> None:
        super().close()
        self._distribution.release()
        if self._is_first:
            self._port_mapper.stop()
            self._mapped_port.release()

    @contextmanager
    def second_node(self, folder: Path) -> Iterator["EmbeddedRabbit"]:
        """Run another node of this one's cluster, for a test to kill; afterwards this one is alone again."""
        node = EmbeddedRabbit(folder, first=self)
        try:
            node.start()
            yield node
        finally:
            node.process.kill()
            node.close()
            self.evaluate(FORGETTING.format(node=node.node))

    def evaluate(self, expression: str) -> str:
        # What `rabbitmqctl eval` does, a hundred times faster.
        cookie = (self._home / COOKIE).read_text()
        answer = subprocess.run(
            ["erl_call", "-sname", self.node, "-c", cookie, "-e"],
            env={**os.environ, **self._environment},
            input=f"{expression}.\n",
            text=True,
            capture_output=True,
        )
        if answer.returncode != 0 or not answer.stdout.startswith("{ok, "):
            raise ServerFailed(f"{expression}: {answer.stdout}{answer.stderr}")
        return answer.stdout.removeprefix("{ok, ").removesuffix("}")


class ContainerRabbit(OwnRabbit):
    """A RabbitMQ in a container, with the settings of the embedded one.

    Args:
        image: one that has `rabbitmqctl` and lets guests in from outside, as the official image does.
    """

    def __init__(self, image: str) -> None:
        super().__init__()
        arguments = f"-rabbit max_message_size {MAX_MESSAGE_BYTES}"
        variables = {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": arguments}
        self.process = ServerContainer(image, {self._listener.number: 5672}, variables)

    def evaluate(self, expression: str) -> str:
        return self.process.execute("rabbitmqctl", "eval", f"{expression}.")


@contextmanager
def running_rabbit() -> Iterator[RabbitServer]:
    """The server that the environment names, or else one of our own that is stopped afterwards.

    Raises ServerUnavailable when neither can be had.
    """
    if given := os.environ.get(ENVIRONMENT):
        yield RabbitServer(given)
        return
    with tempfile.TemporaryDirectory(prefix="faststream-outbox-rabbitmq-") as folder:
        image = container_image("RABBITMQ_IMAGE")
        server = ContainerRabbit(image) if image else EmbeddedRabbit(Path(folder))
        try:
            server.start()
            note("RabbitMQ", run(server.version()))
            yield server
        finally:
            server.close()


def _configuration(port: int) -> str:
    return f"listeners.tcp.default = {LOOPBACK}:{port}\nmax_message_size = {MAX_MESSAGE_BYTES}\n"


def _scripts() -> Path:
    """The folder of the server's own scripts; what stands on the path changes to the service's user and folders."""
    places = os.environ.get("PATH", os.defpath)
    found = shutil.which("rabbitmq-server", path=f"{places}{os.pathsep}/usr/sbin")
    if found is None or shutil.which("epmd") is None or shutil.which("erl_call") is None:
        raise ServerUnavailable(f"RabbitMQ: set {ENVIRONMENT}, or install Debian's rabbitmq-server")
    return Path(found).resolve().parent


def _write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file
