"""A finished small study, its reports written, in this process: seconds."""

import os
from pathlib import Path
from typing import Any

import pytest

from sae_repro.compare.drawing import FORMATS

from ..pipeline.conftest import small_text
from ..pipeline.in_process import carry_out, study

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
