"""Stage `extract`: the subject's activations at named hooks → checksummed shards on disk.

One forward pass serves all hooks and stops after the last one; `extract.untrained_hooks` and
`embeddings_hooks` are read in passes of their own, from the same architecture with random weights.
Kept are real tokens only: BOS, EOS and padding are masked out, padding by length, as are a row's
first position and tokens beyond `extract.norm_limit`. Layout: see `sae_repro.readers.shards`.
"""

from sae_repro.params import Extract
from sae_repro.stage import StageContext


def run(context: StageContext) -> None:
    """Write artifacts/extract."""
    from sae_repro.contents import check, seal
    from sae_repro.extract.extraction import check_fit, extract, weights_seed
    from sae_repro.files import read_json, replacing_folder
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
    names = {"model_name": facts["name"], "dataset_path": corpus.name}
    with replacing_folder(context.artifacts("extract")) as folder:
        shards = extract(
            subject,
            corpus,
            settings,
            seed=seed,
            folder=folder,
            names=names,
            untrained=untrained,
            embeddings=embeddings,
        )
        seal(folder, known=shards)
