"""What ``docker/`` starts."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from faststream_outbox.cli.app import app

DOCKER = Path(__file__).parents[1] / "docker"
IMAGE = re.compile(r"\$\{[A-Z]+_IMAGE:-([^}]+)\}")
EXACT = re.compile(r"[a-z/]+:v?\d+\.\d+\.?\d*(-slim)?(@sha256:[0-9a-f]{64})?")

NO_DIGEST_KNOWN = {"rabbitmq"}


def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return services


def test_everybody_gets_the_same_images() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    images = IMAGE.findall(text)
    assert len(images) == 7
    for image in images:
        assert (match := EXACT.fullmatch(image)), image
        assert match[2] or image.partition(":")[0] in NO_DIGEST_KNOWN, image
    [python] = [image for image in images if image.startswith("python:")]
    assert f"ARG PYTHON_IMAGE={python}\n" in (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def test_the_relay_from_a_file_has_a_file_that_can_be_used() -> None:
    service = services()["relay-from-file"]
    assert service["command"] == ["/srv/venv/bin/faststream-outbox", "relay", "/etc/relay/relay.toml"]
    assert service["volumes"] == ["./relay.toml:/etc/relay/relay.toml:ro"]
    assert '".[demo,relay]"' in (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    result = CliRunner().invoke(app, ["relay", str(DOCKER / "relay.toml"), "--check", "--json"])
    assert result.exit_code == 0, result.stderr
    assert [each["forwarder"] for each in json.loads(result.stdout)] == ["kafka:orders.v1", "redis:stock"]


def test_nobody_has_a_password_to_grafana_that_all_know() -> None:
    environment = services()["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_ports_are_open_to_this_machine_alone() -> None:
    for service in services().values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
