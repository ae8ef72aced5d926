"""One batch of a study through its subject, before hours are spent: `sae-repro check --probe`.

Nothing of the study is written: text, activations and steps of training lie in a folder that is
removed at the end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sae_repro.checkpoint.configuration import read_config, shape_of
from sae_repro.contents import check
from sae_repro.errors import StudyError
from sae_repro.params import HubSubject, NoSubject, Study, TrainedSubject
from sae_repro.pins import check_model
from sae_repro.probe.extraction import NORM_LIMIT, Extraction, extraction
from sae_repro.probe.starts import Measured, compare, starts_of
from sae_repro.probe.text import sample
from sae_repro.probe.trial import Kind, kinds
from sae_repro.readers.documents import TokenDocuments

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Probe:
    """A study's subject, loaded, and the beginning of its text."""

    study: Study
    subject: "TransformerBridge"
    corpus: TokenDocuments
    scratch: Path

    def starts(self) -> list[Measured]:
        """What rows may start with, each on the same text."""
        settings = self.study.extract
        return compare(
            self.subject,
            self.corpus,
            list(starts_of(self.corpus.tokenizer(), settings.prepend_bos)),
            hooks=settings.hooks,
            context=settings.context,
            limit=settings.norm_limit or NORM_LIMIT,
            what="extract.hooks",
        )

    @cached_property
    def extraction(self) -> Extraction:
        """A batch at the study's own hooks."""
        return extraction(
            self.subject,
            self.corpus,
            self.study.extract,
            seed=self.study.seed,
            folder=self.scratch / "extract",
        )

    def kinds(self, rows: int) -> Iterator[Kind]:
        """Kinds of SAEs, a few steps of each, for trainings on `rows` tokens."""
        return kinds(self.study, self.extraction.store, rows, self.scratch / "checkpoint")


@contextmanager
def opened(study: Study, folder: Path) -> Iterator[Probe]:
    """A study's probe; `folder` holds its params.yaml.

    StudyError where there is no subject yet, as of one that is trained, or it can't be had.
    """
    from sae_repro.extract.checks import check_fit
    from sae_repro.numerics.determinism import prepare
    from sae_repro.readers.agreement import load_compared

    if isinstance(study.subject.source, NoSubject):
        raise StudyError(
            "subject.source.kind = none: a probe runs the subject on its text, and given "
            "activations have neither"
        )
    settings = study.extract
    prepare(device=settings.device, threads=settings.threads)
    with TemporaryDirectory(prefix="sae-repro-probe-") as name:
        scratch = Path(name)
        model = _model(study, folder, scratch)
        tokens = settings.batch_size * settings.context
        corpus = sample(study, folder, tokens, scratch / "corpus")
        settings = settings.by_layer(shape_of(read_config(model, "subject"), "subject").n_layers)
        subject, _ = load_compared(
            model, f"subject: {model}", hooks=settings.model_hooks, device=settings.device
        )
        check_fit(settings, subject)
        yield Probe(study.model_copy(update={"extract": settings}), subject, corpus, scratch)


def _model(study: Study, folder: Path, scratch: Path) -> Path:
    """The Hugging Face folder of the subject."""
    source = study.subject.source
    if isinstance(source, TrainedSubject):
        made = folder / "artifacts" / "subject"
        if not made.is_dir():
            raise StudyError(
                "subject.source.kind = train: there is no subject to probe yet; `dvc repro "
                f"{folder / 'dvc.yaml'}:subject` trains it"
            )
        check(made)
        return made
    if isinstance(source, HubSubject):
        from sae_repro.subject.download import fetched

        return fetched(source)
    assert not isinstance(source, NoSubject)  # refused above
    return check_model(source, folder)
