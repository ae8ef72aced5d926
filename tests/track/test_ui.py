"""`sae-repro ui` in a real browser: the study's runs and charts, and no other host is contacted."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from sae_repro.errors import StudyError
from sae_repro.params import Cell, Track, load
from sae_repro.params.appearance import look
from sae_repro.track import send
from sae_repro.track.ui import show

from .chromium import Chromium, installed
from .conftest import cells_named, free_port, write_cell

ROOT = Path(__file__).resolve().parents[2]
CELLS = ("a", "b", "bad")
CONTROL = "neurons"
# a server without accounts has no current user, which MLflow's page asks for nevertheless; and it
# lays out its charts in more than one frame
HARMLESS = "404.*users/current|ResizeObserver loop completed with undelivered notifications"
PARALLEL = ".parcoords"
PLOTS = "[...document.querySelectorAll('.js-plotly-plot')]"


def all_cells() -> dict[str, Cell]:
    """The trained cells of the small study and a negative control."""
    return {**cells_named(CELLS), CONTROL: Cell(baseline="neurons")}


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    folder = make_study(tmp_path / "study")
    shutil.copy(ROOT / "params.yaml", folder)
    write_cell(folder, CONTROL, key="control", fvu=1.23)
    send(folder, folder, all_cells(), Track())
    write_cell(folder, "a", key="99999999")  # so that there is history, which is not to be shown
    send(folder, folder, all_cells(), Track())
    return folder


@contextmanager
def served(study: Path) -> Iterator[str]:
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
def address(study: Path) -> Iterator[str]:
    with served(study) as message:
        yield message


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    program = installed()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    running = Chromium(program, tmp_path)
    yield running
    running.close()


def open_charts(browser: Chromium, address: str) -> None:
    """Return once the frontier, the parallel coordinates, the bars and the curves are drawn."""
    browser.open(address)
    drawn = f"{PLOTS}.length == 3 && {PLOTS}.every(plot => plot.data && plot.data.length > 0)"
    browser.wait_for(drawn, 120)
    browser.wait_for(f"document.querySelector('{PARALLEL} text') !== null", 120)


def plot(browser: Chromium, number: int, expression: str) -> Any:
    """The value of `expression` of the chart `plot`: 0 the frontier, 1 the bars, 2 the curves."""
    return browser.evaluate(f"(plot => {expression})({PLOTS}[{number}])")


@pytest.mark.slow
def test_the_page_shows_the_current_runs_and_contacts_no_other_host(
    browser: Chromium, address: str
) -> None:
    open_charts(browser, address)
    text = browser.evaluate("document.body.innerText")
    assert "4 matching runs" in text
    for name in (*CELLS, CONTROL):
        assert re.search(rf"^{name}$", text, re.M)
    assert "superseded," not in text
    browser.close()
    assert [error for error in browser.errors if not re.search(HARMLESS, error)] == []
    requests = [urlsplit(url) for url in browser.requests()]
    assert len(requests) > 20
    assert {url.netloc for url in requests if url.scheme not in ("data", "blob")} == {
        urlsplit(address).netloc
    }


@pytest.mark.slow
def test_the_charts_have_log_axes_one_colour_per_architecture_and_no_control_on_the_frontier(
    browser: Chromium, address: str
) -> None:
    open_charts(browser, address)
    points = plot(browser, 0, "plot.data.flatMap(run => run.x.map((x, i) => [x, run.y[i]]))")
    # each is drawn twice: MLflow lays the unsmoothed line below the smoothed one
    assert {(round(x, 6), y) for x, y in points} == {(round(math.log10(3), 6), 0.5)}
    named = plot(browser, 0, "plot.data.filter(run => run.x.length).map(run => run.name)")
    assert set(named) == {"a", "b"}
    assert plot(browser, 0, "plot.layout.yaxis.type") == "log"
    assert plot(browser, 0, "plot.layout.xaxis.title.text") == "plot/log10_l0"
    colours = plot(browser, 0, "plot.data.filter(run => run.x.length).map(run => run.marker.color)")
    assert look("vanilla").colour in colours
    assert plot(browser, 1, "plot.data[0].type") == "bar"
    # the control is what a score must beat: it has a bar
    assert CONTROL in json.dumps(plot(browser, 1, "plot.data.map(bars => bars.names)"))
    assert plot(browser, 2, "plot.layout.yaxis.type") == "log"
    assert plot(browser, 2, "Math.max(...plot.data.map(run => run.x.length))") == 320  # a sample
    axes = browser.evaluate(f"document.querySelector('{PARALLEL}').textContent")
    for name in ("expansion", "sparsity", "fvu", "monosemantic"):
        assert name in axes


def test_renew_the_picture_of_the_documentation(
    browser: Chromium,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """docs/ui.png from the artifacts of this checkout, where they are finished."""
    if not request.config.getoption("--renew-pictures"):
        pytest.skip("renews docs/ui.png with --renew-pictures, in a finished checkout")
    study = ROOT
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    loaded = load(study / "params.yaml")
    send(study, study, loaded.cells, loaded.track)
    with served(study) as address:
        browser.resize(1680, 1240)
        open_charts(browser, address)
        browser.evaluate("document.querySelectorAll('[aria-label=Close]').forEach(b => b.click())")
        # shown to who points at a chart
        browser.evaluate("document.querySelectorAll('.modebar').forEach(bar => bar.remove())")
        browser.settle()
        browser.screenshot(ROOT / "docs" / "ui.png")


def test_error_without_runs_names_the_remedy(
    make_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make_study(tmp_path / "study")
    with pytest.raises(StudyError, match="no experiment test in MLflow yet; run `sae-repro track`"):
        show(folder, folder, "test", free_port(), browser=False)


@pytest.mark.slow
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
