"""What a stage loads before it begins: workers load the rest, each once."""

import subprocess
import sys

from sae_repro.params import read_yaml

from .conftest import ROOT

STAGES = sorted(read_yaml(ROOT / "dvc.yaml")["stages"])
HEAVY = ("torch", "transformers", "pandas", "scipy", "sklearn", "matplotlib", "mlflow", "joblib")


def test_no_stage_loads_a_heavy_library_before_it_begins() -> None:
    code = (
        "import importlib, sys, sae_repro.stage\n"
        f"for stage in {STAGES!r}:\n"
        "    importlib.import_module(f'sae_repro.{stage}')\n"
        f"    print(stage, *({{*{HEAVY!r}}} & {{*sys.modules}}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == STAGES


def test_evaluation_loads_none_to_hand_its_jobs_to_workers() -> None:
    """What the stage's own process asks before: it is all that runs until then."""
    code = (
        "import sys, sae_repro.evaluate.job\n"
        "from sae_repro.evaluate.metrics.references import family\n"
        "from sae_repro.evaluate.metrics.steering import why_not\n"
        f"print(*({{*{HEAVY!r}}} & {{*sys.modules}}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
