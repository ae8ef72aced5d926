"""Stage `extract`: the subject's activations at named hooks → checksummed shards on disk.

One forward pass serves all hooks and stops after the last one; `extract.untrained_hooks` and
`embeddings_hooks` are read in passes of their own, from the same architecture with random weights.
Kept are real tokens only: BOS, EOS and padding are masked out, padding by length, as are a row's
first position and tokens beyond `extract.norm_limit`. Layout: see `sae_repro.readers.shards`.
"""

from pathlib import Path

from sae_repro.params import GIVEN, Extract
from sae_repro.stage import STATE, StageContext


def run(context: StageContext) -> None:
    """Write artifacts/extract."""
    from sae_repro.contents import listed, seal, sealed_folder
    from sae_repro.extract.extraction import extract
    from sae_repro.extract.given import write_given
    from sae_repro.extract.loading import layers_in, load_inputs
    from sae_repro.extract.resumption import resumable_folder
    from sae_repro.numerics.determinism import prepare

    settings, seed = context.section(Extract, "extract"), context.value("seed")
    prepare(device=settings.device, threads=settings.threads)
    corpus, subject = context.artifacts("corpus"), context.artifacts("subject")
    if settings.hooks == (GIVEN,):
        with sealed_folder(context.artifacts("extract")) as folder:
            write_given(corpus, settings, seed=seed, folder=folder, study=Path())
        return
    settings = settings.by_layer(layers_in(subject))
    inputs = load_inputs(corpus, subject, settings, seed)
    identity = [
        settings.model_dump(mode="json"),
        seed,
        listed(corpus),
        listed(subject),
        context.code("sae_repro.extract"),
    ]
    with resumable_folder(context.artifacts("extract"), STATE / "extraction", identity) as states:
        seal(states.folder, known=extract(inputs, settings, seed=seed, states=states))
