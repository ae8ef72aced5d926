"""Training one sparse autoencoder: a library that stages use, and no stage itself.

`train` trains the study's cells with it, `tune` its trials, `control` SAEs on synthetic data, and
`evaluate` the small reference SAEs. It knows no stage, no folder of artifacts and no
params.yaml: a `Cell`, the settings `Train` and a store of activations are all it is given.

    from sae_repro.training import Trainer
    trained = Trainer(cell, settings, store, hook, seed=0, checkpoint=path).run()
    trained.sae.encode(x_nd)

trainer       one cell from its first step to its last; the map of a step
batches       the activations of each step
schedules     learning rate, λ's warm-up, the controller's rate
steps         losses and gradients of one step
optimiser     Adam, clipping, unit rows
resampling    new directions for dead latents
contribution  latents sorted by what they contribute
threshold     BatchTopK's threshold as training sees it
watch         not finite, diverged, collapsed
journal       rows of metrics and revivals
checkpoint    all that a step depends on, saved whole
finishing     weights of any step as an SAE on raw activations
"""

from sae_repro.training.batches import Batches
from sae_repro.training.checkpoint import drop_checkpoint, load_checkpoint
from sae_repro.training.finishing import Trained, finished_sae, scale_of
from sae_repro.training.journal import Journal
from sae_repro.training.schedules import control_rate, learning_rate, penalty_warmup
from sae_repro.training.trainer import Trainer, cell_id
from sae_repro.training.watch import Diverged

__all__ = [
    "Batches",
    "Diverged",
    "Journal",
    "Trained",
    "Trainer",
    "cell_id",
    "control_rate",
    "drop_checkpoint",
    "finished_sae",
    "learning_rate",
    "load_checkpoint",
    "penalty_warmup",
    "scale_of",
]
