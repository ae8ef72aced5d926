"""Stage `subject`: see sae_repro.subject."""

from sae_repro.stage import stage

with stage("subject") as context:
    from sae_repro.subject import run

    run(context)
