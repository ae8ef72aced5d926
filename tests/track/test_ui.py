"""`sae-repro ui` in a real browser: the study's runs and charts, and no other host is contacted."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from sae_repro.errors import StudyError
from sae_repro.params import Track
from sae_repro.track import send
from sae_repro.track.ui import show

from .chromium import Chromium, installed
from .conftest import cells_named, free_port, write_cell

ROOT = Path(__file__).resolve().parents[2]
CELLS = ("a", "b", "bad")
# a server without accounts has no current user, which MLflow's page asks for nevertheless; and it
# lays out its charts in more than one frame
HARMLESS = "404.*users/current|ResizeObserver loop completed with undelivered notifications"
PLOTS = "[...document.querySelectorAll('.js-plotly-plot')]"


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    folder = make_study(tmp_path / "study")
    shutil.copy(ROOT / "params.yaml", folder)
    send(folder, folder, cells_named(CELLS), Track())
    write_cell(folder, "a", key="99999999")  # so that there is history, which is not to be shown
    send(folder, folder, cells_named(CELLS), Track())
    return folder


@pytest.fixture
def address(study: Path) -> Iterator[str]:
    """The output of `sae-repro ui`, while it serves."""
    port = free_port()
    process = subprocess.Popen(
        [Path(sys.executable).parent / "sae-repro", "ui", str(study), "--port", str(port)],
        env={k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    message = process.stdout.readline().strip()
    assert message.startswith(f"http://127.0.0.1:{port}/#/experiments/")
    yield message
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    process.stdout.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    program = installed()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    running = Chromium(program, tmp_path)
    yield running
    running.close()


@pytest.mark.slow
def test_the_page_shows_the_current_runs_as_three_charts_and_contacts_no_other_host(
    browser: Chromium, address: str, tmp_path: Path
) -> None:
    browser.open(address)
    drawn = f"{PLOTS}.length == 3 && {PLOTS}.every(plot => plot.data && plot.data.length > 0)"
    browser.wait_for(drawn, 120)
    kinds = browser.evaluate(f"{PLOTS}.map(plot => plot.data[0].type)")
    assert [kind.removesuffix("gl") for kind in kinds] == ["scatter", "bar", "scatter"]
    curves = browser.evaluate(f"{PLOTS}[2].data.map(curve => curve.x.length)")
    assert max(curves) == 320  # of 400 points: MLflow draws a sample
    text = browser.evaluate("document.body.innerText")
    assert "3 matching runs" in text
    for name in CELLS:
        assert re.search(rf"^{name}$", text, re.M)
    assert "superseded," not in text
    browser.screenshot(tmp_path / "ui.png")
    assert (tmp_path / "ui.png").stat().st_size > 20_000
    browser.close()
    assert [error for error in browser.errors if not re.search(HARMLESS, error)] == []
    requests = [urlsplit(url) for url in browser.requests()]
    assert len(requests) > 20
    assert {url.netloc for url in requests if url.scheme not in ("data", "blob")} == {
        urlsplit(address).netloc
    }


def test_error_without_runs_names_the_remedy(
    make_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make_study(tmp_path / "study")
    with pytest.raises(StudyError, match="no experiment test in MLflow yet; run `sae-repro track`"):
        show(folder, folder, "test", free_port(), browser=False)


def test_a_database_that_mlflow_cannot_serve_is_one_line_without_its_password(
    study: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server's own reason, and not the page of traceback before it."""
    from sae_repro.track import ui

    with (
        pytest.raises(StudyError) as caught,
        ui._serving("postgresql://me:hunter2@127.0.0.1:1/db", tmp_path, free_port()),
    ):
        pass
    assert "the MLflow UI did not start: " in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_view_is_kept_in_the_experiment_once(study: Path) -> None:
    from sae_repro.track.view import publish

    client = MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("sae-repro").experiment_id
    place = publish(client, experiment, "root")
    assert publish(client, experiment, "root") == place
    tags = client.get_experiment(experiment).tags
    [view] = [value for name, value in tags.items() if name.startswith("mlflow.sharedViewState")]
    assert len(view) < 5000  # the column's width in MLflow's databases
