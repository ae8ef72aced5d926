"""Stage `evaluate`: see sae_repro.evaluate."""

from sae_repro.stage import stage

with stage("evaluate") as context:
    from sae_repro.evaluate import run

    run(context)
