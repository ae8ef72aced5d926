"""Stage `judge`: see sae_repro.judge."""

from sae_repro.stage import stage

with stage("judge") as context:
    from sae_repro.judge import run

    run(context)
