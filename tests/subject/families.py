"""Tiny random models of transformers' own families of causal language models."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

FAMILIES = """
    afmoe apertus arcee bamba bart bert big_bird biogpt bitnet blenderbot bloom camembert
    codegen cohere cohere2 ctrl deepseek_v2 deepseek_v3 deepseek_v4 diffllama doge dots1
    electra ernie ernie4_5 ernie4_5_moe exaone4 falcon falcon_h1 falcon_mamba flex_olmo gemma
    gemma2 gemma3_text gemma4_text glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa gpt2
    gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite granitemoe granitemoehybrid helium
    hunyuan_v1_dense jais2 jamba jetmoe laguna lfm2 lfm2_moe llama llama4_text mamba mamba2
    marian mbart minimax minimax_m2 ministral ministral3 mistral mixtral modernbert-decoder
    mpt nanochat nemotron nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt pegasus
    persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe
    qwen3_next recurrent_gemma roberta rwkv seed_oss smollm3 stablelm starcoder2 vaultgemma
    whisper xglm xlm-roberta xlnet xlstm youtu
""".split()  # noqa: SIM905
D, LAYERS, POSITIONS = 32, 4, 64
SMALL: dict[str, Any] = {
    "hidden_size": D, "n_embd": D, "d_model": D, "dim": D, "word_embed_proj_dim": D,
    "num_hidden_layers": LAYERS, "n_layer": LAYERS, "num_layers": LAYERS, "n_layers": LAYERS,
    "decoder_layers": LAYERS, "num_attention_heads": 4, "n_head": 4, "num_heads": 4, "n_heads": 4,
    "attention_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "rotary_dim": 4, "intermediate_size": 64, "n_inner": 64, "ffn_dim": 64, "decoder_ffn_dim": 64,
    "dff": 64, "shared_expert_intermediate_size": 64, "moe_intermediate_size": 16,
    "max_position_embeddings": POSITIONS, "n_positions": POSITIONS, "max_seq_len": POSITIONS,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "top_k": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "state_size": 8, "time_step_rank": 4, "lru_width": D,
    "attention_window_size": 8,
    "sliding_window": 8, "window_size": 8, "query_pre_attn_scalar": 8,
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
    "mamba_chunk_size": 8, "chunk_size": 8, "n_groups": 1, "mamba_d_ssm": 64, "mamba_expand": 2,
    "hidden_size_per_layer_input": 8,  "initializer_range": 0.1,
    "init_std": 0.1, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 1,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "conv_dim": D, "conv_L_cache": 3, "block_dim": D,
    "block_ff_dim": 64,
    "num_memory_blocks": 1, "adapter_rank": 4, "index_topk": 8, "index_n_heads": 2,
    "index_head_dim": 8, "embedding_size": D, "attention_hidden_size": D,
    "global_attn_every_n_layers": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
"""Sizes by the name that some family gives them."""
OWN: dict[str, dict[str, Any]] = {
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "bloom": {"hidden_size": D},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
              "expert_layer_offset": 1, "use_mamba_kernels": False},
    "bamba": {"attn_layer_indices": [1, 3]},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "deepseek_v2": {"topk_method": "greedy", "num_key_value_heads": 4},
    "deepseek_v3": {"num_key_value_heads": 4},
    "glm4_moe_lite": {"num_key_value_heads": 4},
    "glm_moe_dsa": {"num_key_value_heads": 4},
    "youtu": {"num_key_value_heads": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "phimoe": {"sliding_window": None},
    "openai-gpt": {},
}  # fmt: skip


def tiny_config(family: str, vocabulary: int) -> Any:
    """The configuration of `family`, its default one with every size shrunk."""
    default = AutoConfig.for_model(family)
    known = set(default.to_dict()) | set(getattr(default, "attribute_map", {}))
    sizes = {key: value for key, value in SMALL.items() if key in known}
    if default.to_dict().get("layer_types"):
        kinds = list(dict.fromkeys(default.layer_types))
        sizes["layer_types"] = [kinds[i % len(kinds)] for i in range(LAYERS)]
    sizes |= {
        key: vocabulary for key in ("vocab_size", "vocab_size_per_layer_input") if key in known
    }
    config = sizes | OWN.get(family, {})
    config = {key: value for key, value in config.items() if value is not None}
    return AutoConfig.for_model(family, **config)


def make(family: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """A model of `family` with random weights and `tokenizer`, saved in `folder`."""
    logging.disable_progress_bar()
    config = tiny_config(family, len(tokenizer))
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    assert size < 2_000_000, f"{family}: {size:,} parameters; shrink it in OWN"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():  # zeros and ones would hide what they multiply
            parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
