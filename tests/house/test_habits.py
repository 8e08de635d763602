"""Files for other programs are valid: workflows, forms, hooks and the citation."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from tests.lowest import lowest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCHEMAS = {
    "vendor.github-workflows": sorted(ROOT.glob(".github/workflows/*.yml")),
    "vendor.dependabot": [ROOT / ".github" / "dependabot.yml"],
    "vendor.github-issue-forms": sorted(
        set(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))
        - {ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"}
    ),
    "vendor.github-issue-config": [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_for_other_programs_follow_their_schema(schema: str) -> None:
    assert SCHEMAS[schema]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run([*command, *map(str, SCHEMAS[schema])], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_python_that_is_promised_is_tested_with_the_newest_and_the_lowest_versions() -> None:
    jobs = read(".github/workflows/tests.yml")["jobs"]
    promised = {name.rsplit(" ", 1)[1] for name in PROJECT["classifiers"] if ":: 3." in name}
    for job in ("newest", "lowest"):
        assert set(jobs[job]["strategy"]["matrix"]["python"]) == promised


def test_a_release_needs_no_password() -> None:
    publish = read(".github/workflows/release.yml")["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


def test_every_dependency_has_a_lower_bound() -> None:
    assert len(lowest(ROOT / "pyproject.toml")) == len(PROJECT["dependencies"])


def test_the_hooks_run_the_linters_of_make_lint() -> None:
    hooks = {
        hook["id"]
        for repository in read(".pre-commit-config.yaml")["repos"]
        for hook in repository["hooks"]
    }
    assert hooks == {"ruff-check", "ruff-format", "import-linter", "pyright"}


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["preferred-citation"]["year"] == 2024
