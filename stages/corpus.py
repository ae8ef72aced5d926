"""Stage `corpus`: see sae_repro.corpus."""

from sae_repro.stage import stage

with stage("corpus") as context:
    from sae_repro.corpus import run

    run(context)
