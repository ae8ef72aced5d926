"""Stage `report`: see sae_repro.report."""

from sae_repro.stage import stage

with stage("report") as context:
    from sae_repro.report import run

    run(context)
