"""Families of causal language models: read as transformers reads them, or refused by one line.

Each goes the way of `sae-repro new --text T --model F`, and on to the activations on disk.
"""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.corpus.tokenizers import byte_pairs
from sae_repro.errors import StudyError
from sae_repro.extract.checks import check_fit
from sae_repro.extract.extraction import Inputs, extract
from sae_repro.extract.resumption import States
from sae_repro.params import Extract
from sae_repro.readers.agreement import load_compared
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore

from .families import FAMILIES, LAYERS, make

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/models.md"
QUICK = ("cohere", "gemma2", "gpt2", "gpt_neo", "helium", "llama", "mamba", "mixtral", "mpt")
HOOKS = ("blocks.1.hook_resid_post", f"blocks.{LAYERS - 1}.hook_resid_pre")
SETTINGS = Extract(
    hooks=HOOKS, context=24, n_tokens=400, n_calibration_tokens=50, n_validation_tokens=200,
    batch_size=5, shard_rows=256, threads=1,
)  # fmt: skip
WORDS = ["".join(random.Random(i).choices("abcdefghij", k=2 + i % 5)) for i in range(300)]

Outcome = Callable[[str], str]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_pairs([" ".join(WORDS)] * 3, 300)


@pytest.fixture
def outcome(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Outcome:
    """Makes a tiny model of a family and takes it through; "equal", or the reason of refusal."""
    (tmp_path / "stages").mkdir()
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    text = "\n\n".join(" ".join(rng.choices(WORDS, k=40)) for _ in range(400))
    (tmp_path / "mine.txt").write_text(text)
    corpus = documents(tokenizer, tmp_path / "corpus")

    def go(family: str) -> str:
        model = Path(f"models/{family}")
        make(family, model, tokenizer)
        name = re.sub("[^a-z0-9]", "-", family)
        made = CliRunner().invoke(app, ["new", name, "--text", "mine.txt", "--model", str(model)])
        if made.exit_code:
            assert isinstance(made.exception, StudyError), f"{family}: {made.exception!r}"
            message = str(made.exception)
            assert "\n" not in message
            assert str(model) in message
            return reason(message)
        bridge, _ = load_compared(model, family, hooks=HOOKS)
        check_fit(SETTINGS, bridge)
        folder = tmp_path / f"extract-{name}"
        extract(Inputs(bridge, corpus, {}), SETTINGS, seed=0, states=States(folder))
        assert worst(ActivationStore(folder), corpus, model) <= 1e-5, family
        return "equal"

    return go


def documents(tokenizer: PreTrainedTokenizerFast, folder: Path) -> TokenDocuments:
    """60 documents of 2 … 40 tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 41, 60)
    tokens = rng.integers(3, len(tokenizer), lengths.sum()).astype(np.int32)
    tokenizer.save_pretrained(folder / "tokenizer")
    frame = pd.DataFrame(
        {
            "document": np.arange(60),
            "start": np.cumsum(lengths) - lengths,
            "length": lengths,
            "split": np.array(["train", "validation", "calibration"])[np.arange(60) % 3],
        }
    )
    return TokenDocuments(folder, tokens, frame)


def worst(store: ActivationStore, corpus: TokenDocuments, folder: Path) -> float:
    """Largest difference from transformers' hidden states, of the largest magnitude, per hook.

    Each row goes through transformers on its own, up to the token in question.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    index = np.concatenate(list(store.index("validation").batches(100)))
    found = {
        hook: np.concatenate(list(store.activations(hook, "validation").batches(100)))
        for hook in HOOKS
    }
    differences = []
    for hook, state in zip(HOOKS, (2, LAYERS - 1), strict=True):
        scale = np.abs(found[hook]).max()
        for row in range(0, len(index), 9):
            document, position, _ = index[row]
            start = position // 23 * 23  # rows of BOS and 23 tokens
            ids = [1, *corpus.document(document)[start : position + 1].tolist()]
            with torch.no_grad():
                states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            difference = np.abs(found[hook][row] - states[state][0, -1].numpy()).max()
            differences.append(difference / scale)
    assert len(differences) > 20
    return float(max(differences))


def reason(message: str) -> str:
    """The kind of a refusal, as the page names it."""
    kinds = {
        "is no causal language model": "no causal language model of text",
        "does not know": "unknown to TransformerLens",
        "gives other numbers": "TransformerLens differs from transformers",
        "come later": "reads later tokens",
        "padding and other rows": "depends on padding",
        "never comes by it": "TransformerLens has no residual stream in it",
        "has no hook": "TransformerLens has no hook in it",
        "can't be run": "TransformerLens can't run it",
    }
    found = [kind for words, kind in kinds.items() if words in message]
    return found[0] if len(found) == 1 else message


def table(outcomes: dict[str, str]) -> str:
    """The page's table: families by what becomes of them."""
    lines = ["| outcome | `model_type` in config.json |", "|---|---|"]
    for kind in ("equal", *sorted(set(outcomes.values()) - {"equal"})):
        families = [f"`{name}`" for name in sorted(outcomes) if outcomes[name] == kind]
        lines.append(f"| {kind} ({len(families)}) | {', '.join(families)} |")
    return "\n".join(lines)


@pytest.mark.parametrize("family", QUICK)
def test_a_family_is_read_as_transformers_does_or_refused(family: str, outcome: Outcome) -> None:
    assert family in outcomes_of(PAGE.read_text())[outcome(family)]


@pytest.mark.slow
def test_the_page_says_what_becomes_of_every_family(outcome: Outcome) -> None:
    assert len(FAMILIES) >= 50
    found = table({family: outcome(family) for family in FAMILIES})
    assert found in PAGE.read_text(), f"docs/models.md is to have\n{found}"


def outcomes_of(page: str) -> dict[str, set[str]]:
    rows = re.findall(r"^\| (\w[^|]*) \(\d+\) \| (.*) \|$", page, re.M)
    return {kind: set(re.findall("`([^`]+)`", names)) for kind, names in rows}
