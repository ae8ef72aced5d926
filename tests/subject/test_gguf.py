"""Subjects in GGUF files: the weights that the quantised ones stand for, and a study on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.params import GgufSubject
from sae_repro.pins import check_model
from sae_repro.readers.examination import examine
from sae_repro.readers.subject import load_plain
from sae_repro.readers.tokenizer import pretrained

D, LAYERS, HEADS, KEYS, INNER = 64, 2, 4, 2, 96
SPECIAL = ["<unk>", "<bos>", "<eos>"]
ALPHABET = sorted(ByteLevel.alphabet())
VOCABULARY = [*SPECIAL, *ALPHABET, "Ġt", "Ġth"]
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
"""llama.cpp's names of a block's tensors."""


def llama() -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                num_key_value_heads=KEYS, intermediate_size=INNER, vocab_size=len(VOCABULARY),
                max_position_embeddings=32, initializer_range=0.2, tie_word_embeddings=False,
            )
        ).eval()  # fmt: skip


def interleaved(w: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in llama.cpp's order: the halves of a head one by one."""
    return w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def write(path: Path, model: LlamaForCausalLM, kind: GGMLQuantizationType) -> None:
    """`model` as a GGUF file, its matrices quantised as `kind`."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(32)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(model.config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(VOCABULARY) - len(SPECIAL)))
    writer.add_token_merges(["Ġ t", "Ġt h"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        parts = name.removesuffix(".weight").split(".")
        if "layers" in parts:
            if parts[-1] in ("q_proj", "k_proj"):
                values = interleaved(values, HEADS if parts[-1] == "q_proj" else KEYS)
            called = f"blk.{parts[2]}.{NAMES['.'.join(parts[3:])]}.weight"
        else:
            called = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}[
                parts[-1]
            ] + ".weight"
        if values.ndim == 2 and kind != GGMLQuantizationType.F32:
            writer.add_tensor(called, quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(called, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def source(path: Path) -> GgufSubject:
    return GgufSubject(kind="gguf", path=path.name, sha256=sha256_file(path))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("gguf"), llama()
    write(folder / "whole.gguf", model, GGMLQuantizationType.F32)
    write(folder / "quantised.gguf", model, GGMLQuantizationType.Q4_1)
    return folder


def logits(folder: Path) -> Any:
    model: Any = load_plain(folder, "it")
    with torch.no_grad():
        return model(torch.arange(3, 30)[None]).logits


def test_unquantised_weights_give_the_models_own_logits(files: Path) -> None:
    folder = check_model(source(files / "whole.gguf"), files)
    expected = llama()(torch.arange(3, 30)[None]).logits.detach()
    torch.testing.assert_close(logits(folder), expected, rtol=1e-5, atol=1e-5)


def test_quantised_weights_are_those_that_they_stand_for(files: Path) -> None:
    folder = check_model(source(files / "quantised.gguf"), files)
    model, kind = llama(), GGMLQuantizationType.Q4_1
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                rounded = quants.dequantize(quants.quantize(parameter.numpy(), kind), kind)
                parameter.copy_(torch.from_numpy(rounded))
        expected = model(torch.arange(3, 30)[None]).logits
    torch.testing.assert_close(logits(folder), expected, rtol=1e-5, atol=1e-5)
    assert (logits(folder) - llama()(torch.arange(3, 30)[None]).logits).abs().max() > 1e-2


def test_the_folder_is_a_model_that_can_be_studied(files: Path) -> None:
    folder = check_model(source(files / "quantised.gguf"), files)
    assert f"blocks.{LAYERS - 1}.hook_resid_post" in examine(folder, "it").hooks
    tokenizer = pretrained(source(files / "quantised.gguf"), files)
    ids = tokenizer("on the map", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == "on the map"
    assert VOCABULARY.index("Ġth") in ids


def test_it_is_dequantised_once_and_again_where_the_folder_was_damaged(files: Path) -> None:
    pinned = source(files / "whole.gguf")
    weights = check_model(pinned, files) / "model.safetensors"
    first, written = weights.read_bytes(), weights.stat().st_mtime_ns
    check_model(pinned, files)
    assert weights.stat().st_mtime_ns == written
    weights.write_bytes(first[:-1])
    assert check_model(pinned, files) / "model.safetensors" == weights
    assert weights.read_bytes() == first


def test_what_is_no_model_or_has_changed_is_refused(files: Path, tmp_path: Path) -> None:
    changed = source(files / "whole.gguf").model_copy(update={"sha256": "0" * 64})
    with pytest.raises(StudyError, match=r"whole\.gguf has changed: its SHA-256 is"):
        check_model(changed, files)
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(StudyError, match="no GGUF file"):
        check_model(source(tmp_path / "text.gguf"), tmp_path)
    (tmp_path / "cut.gguf").write_bytes((files / "whole.gguf").read_bytes()[:5000])
    with pytest.raises(StudyError, match="can't read this GGUF file") as refusal:
        check_model(source(tmp_path / "cut.gguf"), tmp_path)
    assert "\n" not in str(refusal.value)
    assert not any((tmp_path / ".sae-repro/converted").glob("*/config.json"))
