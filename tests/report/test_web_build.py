"""What web/ builds: the files that the package ships are those of its sources and lock."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "web"
SHIPPED = ROOT / "src/sae_repro/report/web"
BUNDLED = {"explorer.js": ["preact"], "charts.js": ["echarts", "zrender", "tslib"]}


@pytest.fixture
def node() -> str:
    program = shutil.which("node")
    if program is None or not (SOURCE / "node_modules").is_dir():
        pytest.skip("no node, or web/node_modules is not installed: `make web` brings it")
    return program


@pytest.mark.slow
def test_a_build_has_the_bytes_that_are_shipped(node: str, tmp_path: Path) -> None:
    subprocess.run([node, "build.mjs", tmp_path], cwd=SOURCE, check=True)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_bytes() for path in SHIPPED.iterdir()}
    assert built.keys() == shipped.keys()
    assert [name for name in built if built[name] != shipped[name]] == []


@pytest.mark.slow
def test_the_units_of_the_frontend_pass(node: str) -> None:
    for script in ("check", "test"):
        done = subprocess.run(
            ["npm", "run", "--silent", script], cwd=SOURCE, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_versions_are_exact_and_the_lock_names_no_host() -> None:
    manifest = json.loads((SOURCE / "package.json").read_text())
    wanted = manifest["dependencies"] | manifest["devDependencies"]
    lock = json.loads((SOURCE / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert lock[f"node_modules/{name}"]["version"] == version
    for name, package in lock.items():
        assert "resolved" not in package, name
        assert name == "" or "integrity" in package, name


def test_scripts_can_stand_in_a_page_and_name_the_libraries_in_them() -> None:
    licences = (SHIPPED / "LICENSES.txt").read_text()
    lock = json.loads((SOURCE / "package-lock.json").read_text())["packages"]
    for script, libraries in BUNDLED.items():
        text = (SHIPPED / script).read_text()
        assert not re.search(r"</script|<!--", text, re.I)
        # a classic script, whatever the page: neither imports nor exports
        assert not re.search(r"^\s*(import|export)\b", text, re.M)
        for name in libraries:
            assert name in text[:400].lower()
            assert f"\n{name} {lock[f'node_modules/{name}']['version']}\n" in licences
