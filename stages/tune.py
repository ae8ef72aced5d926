"""Stage `tune`, of tune/dvc.yaml: see sae_repro.tune."""

from pathlib import Path

from sae_repro.stage import stage

with stage("tune", pipeline=Path("tune/dvc.yaml")) as context:
    from sae_repro.tune import run

    run(context)
