"""Stage `compare`: see sae_repro.compare."""

from sae_repro.stage import stage

with stage("compare") as context:
    from sae_repro.compare import run

    run(context)
