"""What the source distribution and the extras take along."""

import re
import tomllib
from pathlib import Path

from hatchling.builders.sdist import SdistBuilder

from faststream_outbox.forwarders.kinds import OLDEST_NATS

ROOT = Path(__file__).parents[1]

ALWAYS = {"README.md", "LICENSE", "pyproject.toml"}
"""Hatchling takes these without being told."""


def test_the_demo_can_write_its_asyncapi_document_as_yaml() -> None:
    """FastStream imports PyYAML when it is asked for YAML, and does not require it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert any(need.startswith("pyyaml") for need in project["project"]["optional-dependencies"]["demo"])
    assert re.search("^pyyaml==", (ROOT / "requirements/demo.txt").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_source_distribution_has_what_is_built_and_read() -> None:
    files = {file.distribution_path for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    assert {"src/faststream_outbox/py.typed", "docs/tutorial.md"} <= files
    assert {file.split("/")[0] for file in files if "/" in file} == {"src", "docs"}
    assert not any("__pycache__" in file for file in files)


def test_what_the_readme_links_to_goes_along() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = ALWAYS | set(project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "CONTRIBUTING.md" in targets
    for target in targets:
        assert target.split("/")[0] in included, target


def test_the_oldest_client_of_nats_is_the_one_that_the_extra_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = ".".join(map(str, OLDEST_NATS))
    assert f"nats-py>={oldest}" in project["project"]["optional-dependencies"]["nats"]
