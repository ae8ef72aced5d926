"""The study's tokenizer: the subject's own, or one made here from training documents."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.errors import StudyError
from sae_repro.hub import connection_errors, fetching, one_line, reachable
from sae_repro.params import HubSubject, LocalSubject
from sae_repro.pins import check_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

UNK, BOS, PAD = "<unk>", "<bos>", "<pad>"
SPECIAL = [UNK, BOS, PAD]  # ids 0, 1, 2; BOS serves as EOS too


def pretrained(source: LocalSubject | HubSubject, folder: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer that belongs to a pinned model; `folder` holds params.yaml.

    StudyError where it needs code of its own, or has no fast form (tokenizer.json).
    """
    if isinstance(source, LocalSubject):
        path = check_model(source, folder)
        source_name = f"subject.source.path: {path}"
        try:
            return _read(source_name, path, local_files_only=True)
        except OSError as error:
            raise StudyError(f"{source_name}: no tokenizer there ({one_line(error)})") from None
    source_name = f"subject.source: the tokenizer of {source.name} at {source.revision}"
    try:
        return _read(source_name, source.name, revision=source.revision, local_files_only=True)
    except OSError:
        reachable(source_name)
        with fetching(source_name):
            _read(source_name, source.name, revision=source.revision)
    # read from the cache in both cases: the saved folder records how it was read
    return _read(source_name, source.name, revision=source.revision, local_files_only=True)


def _read(source_name: str, name: str | Path, **options: Any) -> "PreTrainedTokenizerFast":
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        # by default, a model with code of its own asks at the terminal whether to run it
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    except connection_errors():
        raise  # missing, not in the cache, or the hub is unreachable
    except Exception as error:  # a damaged tokenizer.json raises errors of many kinds
        raise StudyError(
            f"{source_name}: the tokenizer can't be read ({one_line(error)}); it must come "
            "whole, as tokenizer.json, and need no code of its own"
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise StudyError(
            f"{source_name}: {type(tokenizer).__name__} has no fast form; choose a model with a "
            "tokenizer.json"
        )
    # a tokenizer.json can carry both from its training; documents stay whole, rows are cut later
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def word_level(vocabulary: Sequence[str]) -> "PreTrainedTokenizerFast":
    """One id per word of `vocabulary`, in its order behind the special ones."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    ids = {word: number for number, word in enumerate([*SPECIAL, *vocabulary])}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNK))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return _wrapped(tokenizer)


def byte_pairs(texts: Iterable[str], vocabulary: int) -> "PreTrainedTokenizerFast":
    """Byte-level pairs learnt from `texts`: every text comes back whole from its ids."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return _wrapped(tokenizer)


def _wrapped(tokenizer: "Tokenizer") -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
