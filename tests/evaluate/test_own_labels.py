"""The stage evaluate and labels of a study's own: refused before any SAE is looked at."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sae_repro.corpus.writing import write_stories
from sae_repro.errors import StudyError
from sae_repro.evaluate import run
from sae_repro.files import sha256_file
from sae_repro.params import Corpus, StoriesSource
from sae_repro.stage import StageContext


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ("99,0,1,x\n100,0,1,x\n", "row 2: document 100 does not exist: the text has 100 rows"),
        ("99,0,1,x\n", "none of its 1 spans marks a held-out token"),
        ("0,0,9999,x\n", "row 1: end 9999, but document 0 has"),
        ("x,0,1,x\n", "row 1 (line 2), column document: holds x, not a whole number"),
    ],
)
def test_labels_that_fit_no_token_end_the_stage(
    spans: str,
    says: str,
    make_store: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(name="artifacts/extract", validation=400)  # of documents 0 … 19
    source = StoriesSource(kind="stories", n_documents=100)
    write_stories(Corpus(source=source), source, 0, tmp_path / "artifacts/corpus")
    path = tmp_path / "spans.csv"
    path.write_text("document,start,end,concept\n" + spans)
    labels = {"path": path.name, "sha256": sha256_file(path)}
    context = StageContext("evaluate", {"seed": 0, "evaluate": {"concepts": labels}})
    with pytest.raises(StudyError, match="evaluate") as caught:
        run(context)
    assert says in str(caught.value)
