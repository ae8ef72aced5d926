"""Any text as a study reads it: its tokenizer, its rows, its model, a hook's activations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sae_repro.contents import check
from sae_repro.errors import StudyError, shown
from sae_repro.files import read_json
from sae_repro.params import blocks_to_run, model_hook
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.hooked import point_of, vectors
from sae_repro.readers.row_start import row_start
from sae_repro.readers.shards import GIVEN_ROWS, ActivationStore
from sae_repro.readers.subject import load_for

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Reading:
    """The T tokens of a text."""

    tokens: list[str]
    x_td: Tensor
    """The subject's raw activations at the hook, fp32."""
    kept_t: Tensor
    """Bool: whether extraction would keep the token. It leaves out a row's first position, special
    tokens, and norms beyond `extract.norm_limit` times this hook's median."""


@dataclass(frozen=True)
class TextReader:
    """Reads texts as a study reads its documents, for one hook."""

    artifacts: Path
    hook: str
    """As a cell names it: `untrained/<hook>` is read from the study's random weights."""
    manifest: dict[str, Any]
    tokenizer: "PreTrainedTokenizerFast"
    start: int | None
    """Id of the token in front of each row, if there is one."""

    @classmethod
    def of(cls, study: Path | str, hook: str) -> "TextReader":
        """The reader of the study in a folder; no model is loaded yet.

        StudyError where it holds no study, or one that has not run that far, is damaged, or has no
        language model.
        """
        artifacts = Path(study) / "artifacts"
        if not artifacts.is_dir():
            raise StudyError(
                f"{Path(study).absolute()}: no artifacts there; give the folder of a study as "
                "`study`, after its `dvc repro`"
            )
        check(artifacts / "corpus")
        check(artifacts / "subject")
        check(artifacts / "extract", "manifest.json")
        manifest = read_json(artifacts / "extract" / "manifest.json")
        if manifest["pooling"] == GIVEN_ROWS:
            raise StudyError(
                "activations were given: the study has no language model that reads a text; "
                "reports/explorer/index.html shows the rows on which each latent fires"
            )
        tokenizer = TokenDocuments.load(artifacts / "corpus").tokenizer()
        start = row_start(tokenizer, manifest["prepend_bos"])
        return cls(artifacts, hook, manifest, tokenizer, start)

    @cached_property
    def subject(self) -> "TransformerBridge":
        """The model; StudyError where it lacks the hook."""
        try:
            point = point_of(self.hook)
        except ValueError as error:
            raise StudyError(str(error)) from None
        subject = load_for(self.hook, self.artifacts / "subject", self.manifest)
        if point not in subject.hook_dict:
            raise StudyError(
                f"{self.place}: the subject has no such hook; its layers are 0 … "
                f"{subject.cfg.n_layers - 1}"
            )
        return subject

    @property
    def place(self) -> str:
        """The model's own name of the hook."""
        return model_hook(self.hook)

    @property
    def norm_limit(self) -> float | None:
        """The norm beyond which extraction leaves a token out at this hook, if it has a limit."""
        return ActivationStore(self.artifacts / "extract").norm_limit(self.hook)

    def check_tokens_are_read(self) -> None:
        """StudyError where the study reads one activation per document."""
        if self.manifest["pooling"] != "token":
            raise StudyError(
                f"extract.pooling = {self.manifest['pooling']}: the study's SAEs read a mean over "
                "each document, and no token has latents; choose a study with pooling: token"
            )

    def ids(self, text: str) -> list[int]:
        """The token ids of `text`; StudyError where it has none."""
        ids: list[int] = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            raise StudyError(f"text {shown(text)!r}: no token in it; give some words")
        return ids

    def spelled(self, ids: Sequence[int]) -> list[str]:
        """Each token's text by itself."""
        texts: list[str] = self.tokenizer.backend_tokenizer.decode_batch(
            [[i] for i in ids], skip_special_tokens=False
        )
        return texts

    def text(self, ids: Sequence[int]) -> str:
        """The text of `ids` together."""
        text: str = self.tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def read(self, ids: Sequence[int], progress: Callable[[int], Any] | None = None) -> Reading:
        """The activations of `ids`, in rows of at most the study's context.

        `progress` is called with the number of tokens of each row that was read.
        """
        ahead = [] if self.start is None else [self.start]
        room = self.manifest["context"] - len(ahead)
        x, kept = [], []
        for begin in range(0, len(ids), room):
            row = [*ahead, *ids[begin : begin + room]]
            x.append(self._activations(row)[len(ahead) :])
            kept += [place > 0 and i not in self._special for place, i in enumerate(row)][
                len(ahead) :
            ]
            if progress:
                progress(len(row) - len(ahead))
        x_td, kept_t = torch.cat(x), torch.tensor(kept)
        if self.norm_limit is not None:
            kept_t &= x_td.norm(dim=1) <= self.norm_limit
        return Reading(self.spelled(ids), x_td, kept_t)

    @cached_property
    def _special(self) -> set[int | None]:
        own = self.tokenizer
        return {own.bos_token_id, own.eos_token_id, own.pad_token_id, self.start}

    def _activations(self, row: list[int]) -> Tensor:
        """[len(row), D]."""
        cache: Any
        with torch.no_grad():
            _, cache = self.subject.run_with_cache(
                torch.tensor([row]),
                names_filter=[point_of(self.hook)],
                stop_at_layer=blocks_to_run([self.hook]),
            )
        x_td: Tensor = vectors(self.hook, cache[point_of(self.hook)])[0].float()
        return x_td


def activations_of(text: str, study: Path | str = ".", *, hook: str) -> tuple[list[str], Tensor]:
    """The T tokens of `text` and the subject's raw activations [T, D] at `hook`, fp32.

    As the study itself reads them: its tokenizer, rows of at most its context, behind the token
    that it starts rows with, if any (not returned); `untrained/<hook>` is read from the study's
    random weights. Tokens that extraction leaves out, a row's first and those beyond
    `extract.norm_limit`, are among them: no SAE was trained on their like.
    StudyError where `study` holds no study, or one that has not run that far, is damaged or has no
    language model, the model has no such hook, or the text has no token.
    """
    reader = TextReader.of(study, hook)
    reading = reader.read(reader.ids(text))
    return reading.tokens, reading.x_td
