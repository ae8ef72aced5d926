"""Stage `extract`: the subject's activations at named hooks → checksummed shards on disk.

One forward pass serves all hooks and stops after the last one. Kept are real tokens only: BOS, EOS
and padding are masked out, padding by length. Layout: see `sae_repro.store`.
"""

from sae_repro.params import Extract
from sae_repro.stage import StageContext


def run(context: StageContext) -> None:
    """Write artifacts/extract."""
    from sae_repro.compute import prepare
    from sae_repro.corpus.reader import TokenDocuments
    from sae_repro.extract.extraction import check_fit, extract
    from sae_repro.files import read_json, replacing_folder, sha256_file, sha256_folder
    from sae_repro.subject.loader import load_subject

    settings = context.section(Extract, "extract")
    prepare(device=settings.device, threads=settings.threads)
    corpus = TokenDocuments.load(context.artifacts("corpus"))
    subject = load_subject(context.artifacts("subject"), device=settings.device)
    check_fit(settings, subject)
    facts = read_json(context.artifacts("subject") / "subject.json")
    names = {"model_name": facts["name"], "dataset_path": corpus.name}
    # who depends on the manifest depends on these as well, and need not list them in dvc.yaml
    made_with = {
        "subject": sha256_folder(context.artifacts("subject")),
        "requirements.lock": sha256_file(context.root / "requirements.lock"),
        "store.py": sha256_file(context.root / "src" / "sae_repro" / "store.py"),
    }
    with replacing_folder(context.artifacts("extract")) as folder:
        extract(
            subject,
            corpus,
            settings,
            seed=context.value("seed"),
            folder=folder,
            names=names,
            made_with=made_with,
        )
