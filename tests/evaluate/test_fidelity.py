"""Fidelity to a language model: cross-entropy under replacements, on a tiny model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_repro.evaluate import fidelity as fidelity_module
from sae_repro.evaluate.fidelity import Untouched, Windows, fidelity
from sae_repro.evaluate.resumed import Resumable
from sae_repro.params.hooks import HOOKS
from sae_repro.readers.subject import load_subject

HOOK = "blocks.0.hook_resid_post"
VOCABULARY, CONTEXT = 23, 12


@pytest.fixture(scope="module")
def subject_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sae_repro.corpus.tokenizers import word_level

    folder = tmp_path_factory.mktemp("subject")
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2,
        initializer_range=0.3, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    word_level([chr(97 + i) for i in range(VOCABULARY - 3)]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bridge(subject_folder: Path) -> Iterator[object]:
    return load_subject(subject_folder)


@pytest.fixture
def windows(tmp_path: Path) -> Windows:
    """Rows of BOS and 4 … 11 tokens, padded with BOS; one token in the middle is masked out."""
    rng = np.random.default_rng(0)
    length = rng.integers(5, CONTEXT + 1, (40, 1)).astype(np.int32)
    tokens = rng.integers(3, VOCABULARY, (40, CONTEXT)).astype(np.int32)
    columns = np.arange(CONTEXT)
    tokens[:, 0] = 1
    tokens[columns[None] >= length] = 1
    mask = (columns[None] >= 1) & (columns[None] < length)
    mask[:, 3] = False
    document = (np.arange(40, dtype=np.int32)[:, None] // 3) * 5 + 2  # three rows each, ids apart
    arrays = {"tokens": tokens, "mask": mask, "length": length, "document": document}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return Windows(tmp_path, 10_000)


def test_identity_changes_nothing(bridge: object, windows: Windows) -> None:
    sums = fidelity(Untouched.of(bridge, windows, HOOK), {"identity": lambda x: x}).sums
    assert np.array_equal(sums["ce_identity"], sums["ce_clean"])
    assert not sums["kl_identity"].any()


def test_clean_cross_entropy_is_what_transformers_computes_for_each_document(
    bridge: object, windows: Windows, subject_folder: Path
) -> None:
    model = GPT2LMHeadModel.from_pretrained(subject_folder).eval()
    with torch.no_grad():
        logits = model(windows.tokens).logits[:, :-1]
    spliced = fidelity(Untouched.of(bridge, windows, HOOK), {})
    assert spliced.document.tolist() == sorted(set(windows.document.tolist()))
    valid = windows.mask[:, :-1] & windows.mask[:, 1:]
    for place, document in enumerate(spliced.document):
        mine = valid & torch.from_numpy(windows.document == document)[:, None]
        theirs = torch.nn.functional.cross_entropy(
            logits[mine], windows.tokens[:, 1:][mine], reduction="sum"
        )
        assert spliced.targets[place] == int(mine.sum())
        assert spliced.sums["ce_clean"][place] == pytest.approx(float(theirs), rel=1e-5)


def test_divergence_is_that_of_torch(bridge: object, windows: Windows) -> None:
    spliced = fidelity(Untouched.of(bridge, windows, HOOK), {"zero": torch.zeros_like})
    with torch.no_grad():
        clean = bridge(windows.tokens)[:, :-1].log_softmax(-1)
        zeroed = bridge.run_with_hooks(
            windows.tokens,
            fwd_hooks=[(HOOK, lambda a, hook: a * ~windows.mask[..., None])],
        )[:, :-1].log_softmax(-1)
    valid = windows.mask[:, :-1] & windows.mask[:, 1:]
    theirs = torch.nn.functional.kl_div(
        zeroed[valid], clean[valid], log_target=True, reduction="sum"
    )
    assert spliced.sums["kl_zero"].sum() == pytest.approx(float(theirs), rel=1e-4)
    assert (spliced.sums["kl_zero"] > 0).all()


def test_losses_on_unseen_prefixes_are_those_of_the_targets_that_follow_one(
    bridge: Any, windows: Windows, tmp_path: Path
) -> None:
    real = windows.mask.nonzero().tolist()
    seen = np.random.default_rng(1).random(len(real)) < 0.4
    known = Windows(tmp_path, 10_000, seen)
    spliced = fidelity(Untouched.of(bridge, known, HOOK), {"zero": torch.zeros_like})
    with torch.no_grad():
        clean = bridge(windows.tokens).log_softmax(-1)
        zeroed = bridge.run_with_hooks(
            windows.tokens,
            fwd_hooks=[(HOOK, lambda a, hook: a * ~windows.mask[..., None])],
        ).log_softmax(-1)
    number = {int(document): i for i, document in enumerate(spliced.document)}
    targets, ce, kl = (np.zeros(len(number)) for _ in range(3))
    for (row, column), trained_on in zip(real, seen, strict=True):
        if trained_on or [row, column + 1] not in real:
            continue
        place, then = number[int(windows.document[row])], int(windows.tokens[row, column + 1])
        p, q = clean[row, column], zeroed[row, column]
        targets[place] += 1
        ce[place] -= float(q[then])
        kl[place] += float((p.exp() * (p - q)).sum())
    assert spliced.unseen_targets.tolist() == targets.tolist()
    assert 0 < targets.sum() < spliced.targets.sum()
    assert spliced.sums["unseen_ce_zero"] == pytest.approx(ce, rel=1e-4)
    assert spliced.sums["unseen_kl_zero"] == pytest.approx(kl, rel=1e-3)


def test_where_no_prefix_is_known_none_is_unseen(bridge: object, windows: Windows) -> None:
    spliced = fidelity(Untouched.of(bridge, windows, HOOK), {})
    assert spliced.targets.sum() and not spliced.unseen_targets.any()
    assert not spliced.sums["unseen_ce_clean"].any()


def test_replacing_reaches_real_tokens_only(bridge: object, windows: Windows) -> None:
    """A reconstructed BOS would dominate the loss: masked positions keep their activation."""
    seen: list[torch.Tensor] = []

    def count(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    sums = fidelity(Untouched.of(bridge, windows, HOOK), {"zero": count}).sums
    assert sum(map(len, seen)) == int(windows.mask.sum())
    assert (sums["ce_zero"] != sums["ce_clean"]).all()


def test_no_sum_depends_on_how_rows_are_batched(
    bridge: object, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows.unseen[:] = windows.mask.numpy() & (np.arange(CONTEXT) > 4)
    whole = fidelity(Untouched.of(bridge, windows, HOOK), {"zero": torch.zeros_like})
    monkeypatch.setattr(fidelity_module, "ROWS", 7)
    cut = fidelity(Untouched.of(bridge, windows, HOOK), {"zero": torch.zeros_like})
    assert np.array_equal(whole.targets, cut.targets)
    assert np.array_equal(whole.unseen_targets, cut.unseen_targets)
    for name, sums in whole.sums.items():
        assert cut.sums[name] == pytest.approx(sums, rel=1e-5), name


@pytest.mark.parametrize("place", HOOKS)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_pass_that_resumes_gives_what_a_whole_pass_gives(
    bridge: Any, windows: Windows, layer: int, place: str
) -> None:
    hook, tokens = f"blocks.{layer}.{place}", windows.tokens[:5]
    with torch.no_grad():
        whole = bridge(tokens)
        halved = bridge.run_with_hooks(tokens, fwd_hooks=[(hook, lambda a, hook: a / 2)])
        resumable = Resumable.of(bridge, tokens, hook)
        spared = layer + (place == "hook_resid_post")
        assert (resumable.entering is not None) == (spared > 0)
        assert torch.equal(resumable.untouched(), whole)
        assert torch.equal(resumable.replaced(lambda a: a / 2), halved)
        assert torch.equal(bridge(tokens), whole)  # the model is as it was


def test_blocks_that_do_not_resume_are_run_whole(bridge: Any, windows: Windows) -> None:
    """Here one that adds what it counts of its own runs."""
    tokens, runs = windows.tokens[:5], [0.0]

    def counting(module: Any, inputs: Any, output: Any) -> Any:
        runs[0] += 1
        return output + runs[0]

    handle = bridge.blocks[0].register_forward_hook(counting)
    with torch.no_grad():
        resumable = Resumable.of(bridge, tokens, HOOK)
    handle.remove()
    assert resumable.entering is None
    assert resumable.leaving is None


def test_a_large_vocabulary_makes_passes_of_fewer_windows(
    bridge: Any, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is that of a pass's logits: 49,000 words on 32 windows of 128 tokens are 800 MB."""
    replacements = {"half": lambda x: x / 2}
    at_once = fidelity(Untouched.of(bridge, windows, HOOK), replacements)
    monkeypatch.setattr(fidelity_module, "LOGITS", 3 * CONTEXT * VOCABULARY)
    untouched = Untouched.of(bridge, windows, HOOK)
    assert [len(batch.mask) for batch in untouched.batches] == [3] * 13 + [1]
    few = fidelity(untouched, replacements)
    np.testing.assert_array_equal(few.targets, at_once.targets)
    for name, sums in at_once.sums.items():
        np.testing.assert_allclose(few.sums[name], sums, rtol=1e-5)
    monkeypatch.setattr(fidelity_module, "LOGITS", 1)
    assert {len(tokens) for tokens, *_ in windows.batches(VOCABULARY)} == {1}


def test_windows_hold_the_requested_tokens(windows: Windows, tmp_path: Path) -> None:
    total = int(windows.mask.sum())
    for tokens in (1, 30, total):
        some = Windows(tmp_path, tokens)
        assert int(some.mask.sum()) >= tokens
        assert int(some.mask[:-1].sum()) < tokens
    assert len(Windows(tmp_path, 10**9).tokens) == 40


def test_a_gpu_that_is_not_there_is_refused() -> None:
    from sae_repro.errors import StudyError
    from sae_repro.numerics.determinism import prepare

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(StudyError, match="no GPU here; set device: cpu"):
        prepare(device="cuda", threads=1)
