"""A tiny model and corpus for extraction."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_repro.corpus.tokenizers import word_level
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.subject import load_subject

SPLITS = ("train", "calibration", "validation")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subject")
    config = GPT2Config(
        vocab_size=23, n_positions=8, n_embd=16, n_layer=3, n_head=2, initializer_range=0.3,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    word_level([chr(97 + i) for i in range(20)]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def subject(model_folder: Path) -> Any:
    return load_subject(model_folder)


@pytest.fixture
def corpus(tmp_path: Path) -> TokenDocuments:
    """90 documents of 2 … 20 tokens, one token in twenty a stray BOS."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 21, 90)
    tokens = rng.integers(3, 23, lengths.sum()).astype(np.int32)
    tokens[rng.random(len(tokens)) < 0.05] = 1
    word_level([chr(97 + i) for i in range(20)]).save_pretrained(tmp_path / "tokenizer")
    frame = pd.DataFrame(
        {
            "document": np.arange(90),
            "start": np.cumsum(lengths) - lengths,
            "length": lengths,
            "split": np.array(SPLITS)[np.arange(90) % 3],
        }
    )
    return TokenDocuments(tmp_path, tokens, frame)
