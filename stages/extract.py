"""Stage `extract`: see sae_repro.extract."""

from sae_repro.stage import stage

with stage("extract") as context:
    from sae_repro.extract import run

    run(context)
