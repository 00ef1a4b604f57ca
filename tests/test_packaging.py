"""What the source distribution takes along."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

ALWAYS = {"README.md", "LICENSE", "pyproject.toml"}
"""Hatchling takes these without being told."""


def test_what_the_readme_links_to_goes_along() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = ALWAYS | set(project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "CONTRIBUTING.md" in targets
    for target in targets:
        assert target.split("/")[0] in included, target
