"""A finished small study, its reports written, in this process: seconds."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_repro.compare.drawing import FORMATS

from ..pipeline.conftest import small_text
from ..pipeline.in_process import carry_out, study
from ..track.chromium import Chromium, installed

CELLS = {
    "topk": {"expansion": 4, "activation": "topk", "k": 3, "seeds": [0, 1]},
    "relu": {"expansion": 4, "penalty": "l1", "lambda": 1e-2},
}
SECTION = {"explorer": ["topk", "relu"], "contexts": 3, "chunk": 20}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a study after `report`, and what params.yaml would declare."""
    folder = tmp_path_factory.mktemp("report") / "study"
    folder.mkdir()
    here = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SAE_REPRO_JOBS", "1")
            # the page embeds these alone; the other formats cost most of the time
            patch.setattr("sae_repro.compare.drawing.FORMATS", {"svg": FORMATS["svg"]})
            declared = study(small_text(folder / "text.jsonl"))
            declared |= {"cells": CELLS, "report": SECTION}
            declared["evaluate"] |= {"metrics": ["monosemanticity", "dictionary"]}
            carry_out(
                declared,
                *("corpus", "subject", "extract", "train", "evaluate", "judge", "control"),
                *("compare", "report"),
            )
    finally:
        os.chdir(here)
    return folder, declared


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser that has asked for nothing but files by the time the tests end."""
    program = installed()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    running = Chromium(program, tmp_path_factory.mktemp("browser"))
    yield running
    running.close()
    assert [url for url in running.requests() if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def quiet(browser: Chromium) -> Iterator[Chromium]:
    """The browser, in whose console the test leaves no error."""
    browser.errors.clear()
    yield browser
    assert browser.evaluate("window.hacked ?? 'no'") == "no"
    assert browser.errors == []


SIZES = {1280: 800, 390: 844}


@pytest.fixture(params=SIZES)
def sized(request: pytest.FixtureRequest, quiet: Chromium) -> Chromium:
    """The browser as wide as a screen, and as a telephone."""
    quiet.resize(request.param, SIZES[request.param])
    return quiet
