"""Configurations of other libraries: which keys are read, which change nothing, what is refused.

A key that is in neither list and is set may change what the SAE computes: it is refused, by name.
The lists hold the fields of sae-lens 2.1 to 6.54, eai-sparsify 1.3 and dictionary-learning 0.1.
"""

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.hub import one_line

REASONS = {
    "signed": "the k largest |u| are kept with their sign, where TopK here keeps the k largest u",
    "transcode": "a transcoder, which maps one activation to another; give an SAE",
    "skip_connection": "a linear map beside the SAE, which nothing here has",
    "finetuning_scaling_factor": "z is scaled once more behind the encoder, which nothing here "
    "does; use sae_lens itself for it",
    "d_out": "a transcoder, which maps one activation to another; give an SAE",
}
"""What is known of keys that are refused."""

_TRAINING = """
    adam_beta1 adam_beta2 autocast autocast_lm aux_loss_coefficient auxk_alpha b_dec_init_method
    checkpoint_path compile_llm compile_sae d_submodule dead_feature_threshold dead_feature_window
    decoder_heuristic_init decoder_heuristic_init_norm decoder_init_norm decoder_orthogonal_init
    device dtype eval_batch_size_prompts eval_every_n_wandb_logs expansion_factor
    feature_sampling_window finetuning_method finetuning_tokens from_pretrained_path
    init_encoder_as_decoder_transpose jumprelu_bandwidth jumprelu_init_threshold
    jumprelu_sparsity_loss_mode jumprelu_ste_to_input jumprelu_tanh_scale l0_coefficient
    l0_warm_up_steps l1_coefficient l1_warm_up_steps llm_compilation_mode
    log_activations_store_to_wandb log_optimizer_state_to_wandb log_to_wandb logger lp_norm lr
    lr_decay_steps lr_end lr_scheduler_name lr_warm_up_steps matryoshka_widths
    mse_loss_normalization n_batches_in_buffer n_checkpoints n_eval_batches n_restart_cycles
    noise_scale normalize_sae_decoder output_path pre_act_loss_coefficient resume run_name
    sae_compilation_mode save_final_checkpoint scale_sparsity_penalty_by_decoder_norm seed
    store_batch_size_prompts target_l0 tokens_per_buffer topk_threshold_lr total_training_steps
    total_training_tokens train_batch_size_tokens training_tokens use_ghost_grads
    use_matryoshka_aux_loss use_sparse_activations verbose wandb_entity wandb_id
    wandb_log_frequency wandb_project weight_l1_loss_by_decoder_norms
"""
_PROVENANCE = """
    act_store_device cached_activations_path context_size dataset_path dataset_trust_remote_code
    disable_concat_sequences exclude_special_tokens hook_eval hook_head_index hook_layer hook_name
    hook_point hook_point_eval hook_point_head_index hook_point_layer is_dataset_tokenized
    model_class_name model_from_pretrained_kwargs model_kwargs model_name neuronpedia_id prepend_bos
    sae_lens_training_version sae_lens_version seqpos_slice sequence_separator_token streaming
    use_cached_activations
"""


def _keys(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(texts).split())


SAELENS_KEYS = _keys(
    _TRAINING,
    _PROVENANCE,
    """
    activation_fn activation_fn_kwargs activation_fn_str apply_b_dec_to_input architecture d_in
    d_sae finetuning_scaling_factor k metadata normalize_activations rescale_acts_by_decoder_norm
    reshape_activations
    """,
)
SPARSIFY_KEYS = _keys(
    "activation d_in expansion_factor k metadata num_latents",
    "normalize_decoder multi_topk",  # a decoder kept unit, a second loss: both only in training
)
DICTIONARY_LEARNING_KEYS = _keys(
    """
    activation_dim anneal_start auxk_alpha bandwidth decay_start device dict_class dict_size
    group_fractions group_sizes group_weights k l1_penalty layer lm_name lr n_sparsity_updates p_end
    p_start resample_steps seed sparsity_function sparsity_penalty sparsity_queue_length
    sparsity_warmup_steps steps submodule_name target_l0 threshold_beta threshold_start_step
    top_k_aux trainer_class wandb_name warmup_steps
    """
)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in the JSON file `path`; StudyError where it is damaged or none."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: damaged ({one_line(error)}); fetch it again") from None
    if not isinstance(config, dict):
        raise StudyError(f"{path}: no configuration; fetch it again")
    return config


def refuse_unknown(
    path: Path, config: Mapping[str, Any], known: Set[str], library: str, within: str = ""
) -> None:
    """StudyError where a key that is not `known` is set; `within` is the part of the file."""
    unknown = sorted(key for key in config.keys() - known if not _is_unset(config[key]))
    if not unknown:
        return
    first, others = unknown[0], unknown[1:]
    more = f", like {', '.join(others)}" if others else ""
    reason = REASONS.get(first) or (
        f"unknown here{more}, and it may change what the SAE computes; use {library} itself, or "
        "delete the key if it only concerned training"
    )
    raise StudyError(f"{path}: {within}{first} = {_shown(config[first])}: {reason}")


def flag(path: Path, config: Mapping[str, Any], key: str, *, default: bool) -> bool:
    """The value of `key`, `default` where it is absent or null; StudyError for another type."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise StudyError(f"{path}: {key} = {_shown(value)}: must be true or false; correct it")
    return value


def section(path: Path, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping at `key`, empty where it is absent or null; StudyError for another type."""
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise StudyError(f"{path}: {key} = {_shown(value)}: must be a mapping; correct it")
    return value


def check_size(path: Path, config: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """StudyError where the configuration states another size than the tensors have."""
    for key, size in sizes.items():
        stated = config.get(key)
        if stated not in (None, 0, size):
            raise StudyError(
                f"{path}: {key} = {_shown(stated)}, but the tensors have {size}: configuration and "
                "weights are of two SAEs; fetch both again"
            )


def _is_unset(value: object) -> bool:
    """Whether a key is there without doing anything; 0 is a value."""
    return value is None or value is False or value in ("", "none") or value in ([], {})


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
