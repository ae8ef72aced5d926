"""Stage `extract`: the subject's activations at named hooks → checksummed shards on disk.

One forward pass serves all hooks and stops after the last one; `extract.untrained_hooks` and
`embeddings_hooks` are read in passes of their own, from the same architecture with random weights.
Kept are real tokens only: BOS, EOS and padding are masked out, padding by length, as are a row's
first position and tokens beyond `extract.norm_limit`. Layout: see `sae_repro.readers.shards`.
"""

from sae_repro.params import Extract
from sae_repro.stage import STATE, StageContext


def run(context: StageContext) -> None:
    """Write artifacts/extract."""
    from sae_repro.contents import check, listed, seal
    from sae_repro.extract.checks import check_fit
    from sae_repro.extract.extraction import Inputs, extract, weights_seed
    from sae_repro.extract.resumption import resumable_folder
    from sae_repro.files import read_json
    from sae_repro.numerics.determinism import prepare
    from sae_repro.readers.agreement import load_compared
    from sae_repro.readers.documents import TokenDocuments
    from sae_repro.readers.subject import load_untrained

    settings, seed = context.section(Extract, "extract"), context.value("seed")
    prepare(device=settings.device, threads=settings.threads)
    source = context.artifacts("subject")
    check(context.artifacts("corpus"))
    check(source)
    corpus = TokenDocuments.load(context.artifacts("corpus"))
    hooks = settings.model_hooks
    subject, _ = load_compared(source, f"extract: {source}", hooks=hooks, device=settings.device)
    check_fit(settings, subject)
    untrained = (
        load_untrained(source, weights_seed(seed), device=settings.device)
        if settings.untrained_hooks
        else None
    )
    embeddings = (
        load_untrained(source, weights_seed(seed), device=settings.device, embeddings=True)
        if settings.embeddings_hooks
        else None
    )
    facts = read_json(source / "subject.json")
    inputs = Inputs(
        subject,
        corpus,
        names={"model_name": facts["name"], "dataset_path": corpus.name},
        untrained=untrained,
        embeddings=embeddings,
    )
    identity = [
        settings.model_dump(mode="json"),
        seed,
        listed(context.artifacts("corpus")),
        listed(source),
        context.code("sae_repro.extract"),
    ]
    with resumable_folder(context.artifacts("extract"), STATE / "extraction", identity) as states:
        seal(states.folder, known=extract(inputs, settings, seed=seed, states=states))
