"""Stage `subject`: the language model under study, as one Hugging Face folder in fp32.

artifacts/subject/ holds config.json, model.safetensors, the tokenizer, and subject.json: where the
model comes from (for the hub: the commit), its size, and, for a model trained here, its gates.
Where activations are given there is no model, and subject.json says so.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from sae_repro.contents import check, sealed_folder
from sae_repro.errors import StudyError
from sae_repro.files import write_json
from sae_repro.params import GgufSubject, HubSubject, LocalSubject, NoSubject, Subject
from sae_repro.pins import check_model
from sae_repro.readers.examination import examine
from sae_repro.stage import StageContext


def run(context: StageContext) -> None:
    """Train, copy or download the study's language model."""
    subject = context.section(Subject, "subject")
    if isinstance(subject.source, NoSubject):
        with sealed_folder(context.artifacts("subject")) as folder:
            write_json(folder / "subject.json", {"kind": "none", "name": "none"})
        return
    with sealed_folder(context.artifacts("subject")) as folder:
        match subject.source:
            case LocalSubject() | GgufSubject():
                facts = _copy(check_model(subject.source, Path()), folder)
                facts["name"] = Path(subject.source.path).name.removesuffix(".gguf")
            case HubSubject():
                from sae_repro.subject.download import download

                facts = download(subject.source, folder)
            case _:
                facts = _train(context, subject, folder)
        # with the checks of `sae-repro check`, which saw no model of the hub
        examine(folder, f"subject: {facts['name']}")
        write_json(folder / "subject.json", {"kind": subject.source.kind, **facts})


def _copy(source: Path, folder: Path) -> dict[str, Any]:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model"):
            shutil.copy(path, folder / path.name)
    return {}


def _train(context: StageContext, subject: Subject, folder: Path) -> dict[str, Any]:
    import torch
    from transformers.utils import logging

    from sae_repro.numerics.determinism import prepare
    from sae_repro.readers.documents import TokenDocuments
    from sae_repro.subject import gates
    from sae_repro.subject.gpt2 import train_subject

    settings = subject.training
    assert settings is not None  # the schema gives a trained subject its training
    prepare(device=settings.device, threads=1)  # those of the settings share a batch's rows
    check(context.artifacts("corpus"))
    corpus = TokenDocuments.load(context.artifacts("corpus"))
    model, facts = train_subject(corpus, settings, seed=context.value("seed"))
    facts["name"] = f"gpt2-{settings.n_layers}l-{settings.d_model}d-trained-here"
    logging.disable_progress_bar()  # one small file needs none
    model.save_pretrained(folder)
    tokenizer = corpus.tokenizer()
    tokenizer.save_pretrained(folder)
    if (context.artifacts("corpus") / "concepts.json").is_file():
        offset = len(tokenizer.all_special_ids)
        room = settings.context - 1  # positions behind BOS; longer stories are read that far
        documents = [
            np.asarray(corpus.document(int(i)))[:room] - offset
            for i in corpus.split("validation")[:4000]
        ]

        def logits(tokens: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                result: torch.Tensor = model(tokens.to(model.device)).logits
            return result.cpu()

        measured = gates.measure(logits, documents, token_offset=offset, bos=tokenizer.bos_token_id)
        facts |= {"gates": vars(measured), "thresholds": gates.THRESHOLDS}
        failed = [
            f"{name} is {getattr(measured, name):.3f}, needed is {gates.THRESHOLDS[name]}"
            for name in measured.failed()
        ]
        if failed:
            raise StudyError(
                "the trained subject has not learnt what the study needs: "
                + "; ".join(failed)
                + f"; raise subject.training.steps (now {settings.steps}) or corpus.source."
                "n_documents"
            )
    return facts
