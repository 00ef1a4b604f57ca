"""A server in a container, for tests to stop and start like a process of our own; and whether to use containers at all.

`OUTBOX_SERVERS` says where servers come from that the environment does not name by a URL: `docker` (testcontainers),
`embedded` (programs on this machine), or `auto`, which is a container if a Docker engine answers and has the image or
can pull it, else embedded. `POSTGRES_IMAGE`, `KAFKA_IMAGE`, `RABBITMQ_IMAGE` and `REDIS_IMAGE` name other images than
the official ones; `docker/build-images` builds some where there is no registry.
"""

import gc
import os
import signal
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import docker
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from requests.exceptions import RequestException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from .process import LOOPBACK, ServerFailed, ServerUnavailable

ENVIRONMENT = "OUTBOX_SERVERS"

OFFICIAL = {
    "POSTGRES_IMAGE": "postgres:18.6",
    "KAFKA_IMAGE": "apache/kafka:4.1.1",
    "RABBITMQ_IMAGE": "rabbitmq:4.2.4",
    "REDIS_IMAGE": "redis:8.2.1",
}


@cache
def container_image(variable: str) -> str | None:
    """The image to start the server from, which is there; None if the server is to be an embedded one.

    Args:
        variable: the environment variable that may name another than the official image.

    Raises ServerUnavailable when there must be a container and there is no engine or no image.
    """
    wanted = os.environ.get(ENVIRONMENT, "auto")
    if wanted not in {"auto", "docker", "embedded"}:
        raise ServerFailed(f"{ENVIRONMENT} is {wanted!r}; it can be auto, docker or embedded")
    if wanted == "embedded":
        return None
    image = os.environ.get(variable) or OFFICIAL[variable]
    try:
        _pull_if_missing(image)
    except ServerUnavailable:
        if wanted == "docker":
            raise
        return None
    _see_to_the_reaper()
    return image


@cache
def _see_to_the_reaper() -> None:
    """Where testcontainers' image that removes a killed session's containers cannot be had, go without it."""
    if not testcontainers_config.ryuk_disabled:
        try:
            _pull_if_missing(testcontainers_config.ryuk_image)
        except ServerUnavailable:
            testcontainers_config.ryuk_disabled = True


def _pull_if_missing(image: str) -> None:
    client = None
    try:
        client = docker.from_env()
        if not client.images.list(name=image):
            client.images.pull(image)
    except (DockerException, RequestException) as error:
        reason = f"{image}: {error}"
    else:
        return
    finally:
        if client is not None:
            client.close()
    # A socket without an engine behind it is dropped by the library instead of closed.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()
    raise ServerUnavailable(reason)


class ServerContainer:
    """A container with the methods of a `ServerProcess`; keeps its ports and its data through `stop` and `start`.

    Args:
        image: its name.
        ports: which port of ours on loopback leads to which port of the container.
        environment: the server's environment variables.
        command: arguments for the image's entry point.
    """

    def __init__(
        self, image: str, ports: Mapping[int, int], environment: Mapping[str, str], command: Sequence[str] = ()
    ) -> None:
        self._image = image
        self._testcontainer = DockerContainer(image, env=dict(environment))
        # `with_bind_ports` knows no address and would offer the server to the whole network.
        self._testcontainer.ports = {inner: (LOOPBACK, ours) for ours, inner in ports.items()}  # type: ignore[misc]
        if command:
            self._testcontainer.with_command(list(command))

    @property
    def _container(self) -> Container:
        return self._testcontainer.get_wrapped_container()

    def start(self, is_ready: Callable[[], bool], timeout: float = 30.0) -> None:
        """Start the container and return when `is_ready` says so; raise ServerFailed if it exits or takes too long."""
        if self._testcontainer._container is None:
            self._testcontainer.start()
        else:
            self._container.start()
        deadline = time.monotonic() + timeout
        while not (self.alive and is_ready()):
            if not self.alive or time.monotonic() > deadline:
                reason = f"is not ready after {timeout:g} s" if self.alive else "exited"
                raise ServerFailed(f"{self._image} {reason}; its log:\n{self.log_tail()}")
            time.sleep(0.05)

    @property
    def alive(self) -> bool:
        self._container.reload()
        return self._container.status in {"running", "paused"}

    def send_signal(self, number: int) -> None:
        self._container.kill(signal=number)

    def stop(self, stop_signal: int = signal.SIGTERM, timeout: float = 15.0) -> None:
        """Stop the server on a signal, and wait for its end; does nothing if it is gone."""
        if not self.alive:
            return
        self.resume()
        self.send_signal(stop_signal)
        try:
            self._container.wait(timeout=timeout)
        except RequestException:
            self.kill()
            raise ServerFailed(f"{self._image} did not stop in {timeout:g} s and was killed") from None

    def kill(self) -> None:
        """`kill -9`, and wait for the end."""
        if self.alive:
            self.send_signal(signal.SIGKILL)
            self._container.wait()

    def pause(self) -> None:
        """Freeze every process of the container: connections stay open and nothing is answered."""
        self._container.pause()

    def resume(self) -> None:
        self._container.reload()
        if self._container.status == "paused":
            self._container.unpause()

    def execute(self, *command: str) -> str:
        """Run a program in the container and return what it prints; raise ServerFailed when it fails."""
        status, output = self._container.exec_run(list(command))
        if status != 0:
            raise ServerFailed(f"{' '.join(command)} failed with status {status}\n{output.decode()}")
        return output.decode()

    def log_tail(self, lines: int = 40) -> str:
        return self._container.logs(tail=lines).decode(errors="replace")

    def close(self) -> None:
        """Remove the container and its data, whether it runs or not."""
        try:
            self._testcontainer.stop()
        except NotFound:
            # Somebody, such as an engine that was restarted, was here before us.
            return
