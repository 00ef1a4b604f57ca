"""The documentation site: what a machine without its tools can check. `make docs` builds it, and checks its links."""

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
import yaml

import faststream_outbox
from faststream_outbox import TestOutboxBroker
from faststream_outbox.fastapi import make_health_router
from faststream_outbox.relay.settings import RelaySettings
from tests.test_docs import DOCS, PAGES, ROOT, quickstart, run_page

__all__ = ("quickstart",)

MODULES = ("", "admin", "annotations", "fastapi", "opentelemetry", "prometheus", "testing")
"""The public ones that say in `__all__` which names are theirs."""

REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "reference").glob("*.md")))


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_each_public_name(module: str) -> None:
    name = ".".join(filter(None, ("faststream_outbox", module)))
    public = importlib.import_module(name).__all__
    assert public
    for each in public:
        # FastStream's own are told in a table; another module's docstring is not repeated.
        own = f"::: {name}.{each}\n" in REFERENCE or f"| `{each}` | `faststream." in REFERENCE
        again = module and each in faststream_outbox.__all__ and f"::: faststream_outbox.{each}\n" in REFERENCE
        assert own or again, f"{name}.{each}"


def test_the_reference_has_no_name_that_is_not_there() -> None:
    for path in re.findall(r"^::: (\S+)$", REFERENCE, re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name, None) is not None, path


def test_each_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} <= named


BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_can_be_read(page: Path) -> None:
    """Each block names its language, and is no nonsense in it."""
    text = page.read_text(encoding="utf-8")
    for indent, language, indented in BLOCK.findall(text):
        block = re.sub(rf"^{indent}", "", indented, flags=re.MULTILINE)
        match language:
            case "python":
                compile(block, page, "exec")
            case "yaml":
                assert [*yaml.safe_load_all(block)]
            case "toml":
                assert tomllib.loads(block)
            case "console":
                assert re.match(r"[$>] ", block), block
    assert text.count("```") % 2 == 0


def run_how_to(page: str, names: dict[str, Any], folder: Path) -> None:
    (folder / "how-to").mkdir()
    run_page(f"how-to/{page}", names, folder)


QUEUES = {
    "destinations": {
        *("to-kafka", "to-kafka-with-tls", "to-a-queue", "to-an-exchange", "to-a-stream", "to-a-list"),
        *("to-nats", "to-confluent", "to-mqtt"),
    },
    "local-and-remote": {"orders", "invoices", "packed"},
    "order": {"changes"},
}
"""Those of the forwarders of each page."""


@pytest.mark.parametrize("page", QUEUES)
async def test_a_page_with_forwarders(page: str, quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_how_to(page, quickstart, tmp_path)

    broker = quickstart["router"].broker
    assert {queue for forwarder in broker.forwarders for queue in forwarder.queues} == QUEUES[page]
    broker.check_consumers()
    for forwarder in broker.forwarders:
        forwarder.check()


async def test_the_page_on_tenants(quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_how_to("tenants", quickstart, tmp_path)

    [tea, books] = quickstart["brokers"].values()
    assert [each.name for each in (*tea.forwarders, *books.forwarders)] == [
        "kafka:tea_house.orders.v1",
        "kafka:book_shop.orders.v1",
    ]


async def test_the_page_on_dead_letters(quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_how_to("dead-letters", quickstart, tmp_path)

    async with TestOutboxBroker(quickstart["broker"]):
        await quickstart["after_the_outage"]()


async def test_the_page_on_pgbouncer(quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_how_to("pgbouncer", quickstart, tmp_path)
    # The same settings as where they were measured.
    [arguments] = re.findall(r"connect_args=\{.*?\n    \}", (DOCS / "how-to" / "pgbouncer.md").read_text(), re.DOTALL)
    assert arguments in (DOCS / "operating.md").read_text()


async def test_the_page_on_faststream_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://database.invalid/shop")
    monkeypatch.setitem(sys.modules, "billing", type(sys)("billing"))
    names: dict[str, Any] = {"__name__": "billing"}
    run_how_to("faststream", names, tmp_path)

    await names["test_billing"]()
    assert names["app"].broker is names["broker"]
    async with TestOutboxBroker(names["broker"]) as broker:
        await broker.publish({"order_id": 1}, queue="billed", session=AsyncMock())
        names["thank"].mock.assert_called_once_with({"order_id": 1})


def manifests() -> Iterator[dict[str, Any]]:
    for _, language, block in BLOCK.findall((DOCS / "how-to" / "kubernetes.md").read_text(encoding="utf-8")):
        if language == "yaml":
            yield from yaml.safe_load_all(block)


def test_the_page_on_kubernetes() -> None:
    paths = {getattr(route, "path", "") for route in make_health_router(MagicMock()).routes} | {"/live", "/ready"}
    kinds = [each["kind"] for each in manifests()]
    assert kinds == ["Deployment", "ConfigMap", "Deployment"]
    [file] = [each["data"]["relay.toml"] for each in manifests() if each["kind"] == "ConfigMap"]
    RelaySettings.model_validate(tomllib.loads(file))
    for deployment in (each["spec"] for each in manifests() if each["kind"] == "Deployment"):
        assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
        pod = deployment["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= 15 + 10
        [container] = pod["containers"]
        for probe in ("livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["path"] in paths
            assert container[probe]["httpGet"]["port"] == container["ports"][0]["containerPort"]


# --- Symptoms and remedies --------------------------------------------------------------------------------------------


@cache
def texts_of_the_source() -> str:
    """What the source can say: the constant parts of its strings, a line for each."""
    found = list[str]()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


SYMPTOMS = [
    (line.split("|")[1].strip(), text)
    for line in (DOCS / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and " " in line.split("|")[1].strip()
    for text in re.findall(r"`([^`]* [^`]*)`", line.split("|")[1])
]


def test_there_are_symptoms() -> None:
    assert len(SYMPTOMS) > 40


@pytest.mark.parametrize("text", [text for _, text in SYMPTOMS])
def test_a_symptom_is_what_the_source_says(text: str) -> None:
    source = texts_of_the_source()
    for part in text.split("..."):
        assert part.strip() in source, part
