"""Stage `corpus`: text → token documents, split by a hash of their content.

artifacts/corpus/ holds tokens.npy (int32, all documents end to end, nothing special added),
documents.parquet, tokenizer/ (a Hugging Face folder), corpus.json (counts, what was skipped), and
for stories labels.npy and concepts.json. Of given activations each row is a token, whose text the
table has; rows.npy says where in the files it is. Read it through `sae_repro.readers.documents`.
"""

from pathlib import Path

from sae_repro.contents import sealed_folder
from sae_repro.params import (
    ActivationsSource,
    Corpus,
    NoSubject,
    StoriesSource,
    SubjectChoice,
    check_section,
)
from sae_repro.stage import StageContext


def run(context: StageContext) -> None:
    """Write artifacts/corpus."""
    from sae_repro.corpus.writing import write_stories, write_texts

    corpus = context.section(Corpus, "corpus")
    subject = check_section(
        SubjectChoice, {"source": context.value("subject.source")}, within="subject"
    )
    seed = context.value("seed")
    with sealed_folder(context.artifacts("corpus")) as folder:
        if isinstance(corpus.source, StoriesSource):
            write_stories(corpus, corpus.source, seed, folder)
        elif isinstance(corpus.source, ActivationsSource):
            from sae_repro.corpus.given import write_given

            write_given(corpus, corpus.source, seed, folder, study=Path())
        else:
            assert not isinstance(subject.source, NoSubject)  # a text has a subject
            write_texts(corpus, subject.source, seed, folder, study=Path())
