"""Stage `track`: see sae_repro.track."""

from sae_repro.stage import stage

with stage("track") as context:
    from sae_repro.track import run

    run(context)
