"""Stage `control`: see sae_repro.control."""

from sae_repro.stage import stage

with stage("control") as context:
    from sae_repro.control import run

    run(context)
