"""The files for GitHub and dev containers: they can be read, and name commands that exist."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import typer
from ruamel.yaml import YAML

from sae_repro.cli import app

ROOT = Path(__file__).resolve().parents[2]
YAML_FILES = sorted((ROOT / ".github").rglob("*.yml"))
FILES = [*YAML_FILES, ROOT / ".github/pull_request_template.md", ROOT / ".ci/run",
         ROOT / ".devcontainer/devcontainer.json"]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", text)) <= targets
    commands = typer.main.get_command(app)
    options = {option for parameter in commands.params for option in parameter.opts}
    known = set(commands.commands) | options  # type: ignore[attr-defined]
    assert set(re.findall(r"`sae-repro ([\w-]+)", text)) <= known
    for name in re.findall(r"\b(?:locks/\w+\.txt|requirements\.lock|\.ci/run)\b", text):
        assert (ROOT / name).is_file(), name


def test_the_workflow_runs_what_ci_runs_with_the_locked_torch() -> None:
    workflow = YAML(typ="safe").load(ROOT / ".github/workflows/ci.yml")
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"]
                if "run" in step]  # fmt: skip
    assert commands[0] == "bash .ci/run"
    pin = re.search(r"^torch==\S+", (ROOT / "requirements.lock").read_text(), re.M)
    assert pin is not None
    for path in (ROOT / ".github/workflows/ci.yml", ROOT / ".devcontainer/devcontainer.json"):
        assert set(re.findall(r"torch==[\w.]+", path.read_text())) == {pin[0]}


def test_issue_forms_ask_for_what_is_needed() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = YAML(typ="safe").load(path)
        assert {"name", "description", "body"} <= form.keys()
        assert all({"type", "attributes"} <= field.keys() for field in form["body"])
    text = (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text()
    for asked in ("sae-repro --version", "sae-repro check", "params.yaml"):
        assert asked in text


def test_the_dev_container_is_readable() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"].startswith("make dev")


def test_plain_make_lists_every_target() -> None:
    # as from a shell, also where the tests themselves run under make
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"
    }
    listed = subprocess.run(
        ["make"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.M))
    assert {line.split()[0] for line in listed.splitlines()} == targets
