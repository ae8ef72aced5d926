"""Stage `train`: see sae_repro.train."""

from sae_repro.stage import stage

with stage("train") as context:
    from sae_repro.train import run

    run(context)
