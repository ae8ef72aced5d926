"""`sae-repro tune-ui` in a clone of this repository, which has trials.csv and no journal."""

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest

from ..track.chromium import Chromium, installed
from .conftest import environment

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "tuning-ui.png"


@pytest.fixture
def address(repository_clone: Path) -> Iterator[str]:
    """The address that `sae-repro tune-ui` prints, while it serves."""
    pytest.importorskip("optuna_dashboard", reason="needs the extra `dashboard`")
    assert not (repository_clone / "tune/journal.log").exists()
    kept = {k: v for k, v in environment(repository_clone).items()
            if k not in ("DISPLAY", "WAYLAND_DISPLAY")}  # fmt: skip
    process = subprocess.Popen(
        [Path(sys.executable).parent / "sae-repro", "tune-ui", "--port", "0"],
        cwd=repository_clone, env=kept, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    what, where = (process.stdout.readline().strip() for _ in range(2))
    assert re.fullmatch(r"\.sae-repro/tune-[0-9a-f]{16}\.log: 144 trials", what)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/dashboard/studies/0", where)
    yield where
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    process.stdout.close()


@pytest.mark.slow
def test_the_recorded_study_opens_with_every_trial_and_changes_no_file_of_git(
    address: str, repository_clone: Path
) -> None:
    with urllib.request.urlopen(address.replace("/dashboard/", "/api/") + "?after=0") as answer:
        study = json.load(answer)
    recorded = pd.read_csv(repository_clone / "tune/trials.csv")
    assert study["objective_names"] == ["fvu_at_l0"]
    assert [t["number"] for t in study["trials"]] == recorded["trial"].tolist()
    assert [t["values"] for t in study["trials"]] == recorded[["fvu_at_l0"]].to_numpy().tolist()
    within = [all(c <= 0 for c in t["constraints"]) for t in study["trials"]]
    assert within == (recorded["l0_off"] <= 0.05).tolist()
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=repository_clone, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert status == ""


@pytest.mark.slow
def test_the_page_names_the_metrics_and_contacts_no_other_host(
    address: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program = installed()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    browser = Chromium(program, tmp_path)
    plots = "[...document.querySelectorAll('.js-plotly-plot')]"
    try:
        browser.open(address)
        browser.wait_for(f"{plots}.length >= 3 && {plots}.every(p => p.data)", 120)
        points = browser.evaluate(
            f"Math.max(...{plots}.flatMap(p => p.data.map(trace => trace.x?.length ?? 0)))"
        )
        # those that break the constraint have a trace of their own
        assert points == (pd.read_csv(ROOT / "tune/trials.csv")["l0_off"] <= 0.05).sum()
        text = browser.evaluate("document.body.innerText")
        assert "History" in text and "fvu_at_l0" in text
        assert "Objective 0" not in text
        picture = tmp_path / "tuning-ui.png"
        browser.screenshot(picture)
        assert picture.stat().st_size > 20_000
        browser.open(address + "/trials?numbers=13")
        text = "(document.body?.innerText ?? '')"
        browser.wait_for(rf"/cell\.activation\s+jumprelu/.test({text})", 60)
    finally:
        browser.close()
    assert browser.errors == []
    requests = [urlsplit(url) for url in browser.requests()]
    assert {url.netloc for url in requests if url.scheme not in ("data", "blob")} == {
        urlsplit(address).netloc
    }
    if request.config.getoption("--renew-pictures", default=False):
        shutil.copy(picture, PICTURE)
