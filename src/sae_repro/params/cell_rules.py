"""Which choices of a cell go together: a senseless combination is refused, and the reason said."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae_repro.params.cell import Cell

PENALISED = ("l1", "l1_decoder_norm", "log", "tanh", "sqrt", "l0", "l0_quadratic")
L0 = ("l0", "l0_quadratic")
RANDOM = ("random", "random_published")
RESAMPLE = ("resample", "resample_published")

# what an untrained SAE depends on; normalisation is folded out again before anything was learnt
READ_UNTRAINED = ("hook", "expansion", "seed", "seeds", "activation", "k", "jumprelu_bandwidth",
                  "apply_b_dec_to_input", "b_dec_init")  # fmt: skip

# (field, axis, values of the axis with which the field is read)
READ_WHEN: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("k", "activation", ("topk", "batchtopk")),
    ("jumprelu_bandwidth", "activation", ("jumprelu",)),
    ("lambda_", "penalty", PENALISED),
    ("lambda_warmup", "penalty", PENALISED),
    ("target_l0", "penalty", PENALISED),
    ("prefix_shares", "prefixes", ("fixed",)),
    ("n_prefixes", "prefixes", RANDOM),
    ("prefix_alpha", "prefixes", RANDOM),
    ("order", "prefixes", ("fixed", *RANDOM)),
    ("resample_every", "revival", RESAMPLE),
    ("resample_until", "revival", RESAMPLE),
    ("resample_tokens", "revival", RESAMPLE),
    ("resample_bias", "revival", RESAMPLE),
    ("auxk_coefficient", "revival", ("auxk",)),
    ("dead_tokens", "revival", ("auxk",)),
)


def _published(cell: "Cell") -> bool:
    return cell.revival == "resample_published" or cell.prefixes == "random_published"


RULES: tuple[tuple[Callable[["Cell"], bool], str], ...] = (
    (
        lambda c: c.activation in ("topk", "batchtopk") and c.k is None,
        "activation topk and batchtopk need k, the latents per token",
    ),
    (
        lambda c: c.activation in ("topk", "batchtopk") and c.penalty != "none",
        "k already sets the sparsity of topk and batchtopk: penalty must be none",
    ),
    (
        lambda c: c.activation == "relu" and c.penalty == "none" and c.baseline is None,
        "nothing keeps relu sparse: set penalty to l1 (decoder: unit_norm), or to "
        "l1_decoder_norm, log, tanh or sqrt",
    ),
    (
        lambda c: (
            c.activation in ("jumprelu", "gated") and c.penalty == "none" and c.baseline is None
        ),
        "nothing keeps jumprelu and gated sparse: set penalty (jumprelu: l0, l0_quadratic, tanh; "
        "gated: l1)",
    ),
    (
        lambda c: c.penalty in L0 and c.activation != "jumprelu",
        "penalty l0 and l0_quadratic count latents above a threshold that is trained, which only "
        "activation jumprelu has",
    ),
    (
        lambda c: c.penalty != "none" and c.lambda_ is None,
        "a penalty needs lambda, its weight (> 0); with target_l0 it is where the controller "
        "starts",
    ),
    (
        lambda c: c.penalty == "l0_quadratic" and c.target_l0 is None,
        "penalty l0_quadratic is λ(L0 / L0* − 1)²: give L0* as target_l0",
    ),
    (
        lambda c: c.penalty == "l1" and c.decoder == "free" and not _published(c),
        "penalty l1 with a free decoder shrinks z and grows W_dec for nothing: use decoder: "
        "unit_norm, or penalty: l1_decoder_norm",
    ),
    (
        lambda c: c.penalty == "l1_decoder_norm" and c.decoder == "unit_norm",
        "with unit-norm rows l1_decoder_norm is l1: write penalty: l1, or decoder: free",
    ),
    (
        lambda c: c.seeds is not None and "seed" in c.model_fields_set,
        "seed and seeds exclude one another: list the seed among seeds, or delete seeds",
    ),
    (
        lambda c: c.seeds is not None and len(set(c.seeds)) < len(c.seeds),
        "seeds names one seed twice",
    ),
    (
        lambda c: abs(sum(c.prefix_shares) - 1) > 1e-6,
        "prefix_shares must sum to 1",
    ),
    (
        lambda c: c.lr_warmup + c.lr_decay > 1,
        "lr_warmup + lr_decay must be ≤ 1: they are shares of the same steps",
    ),
)


def faults(cell: "Cell") -> Iterator[str]:
    """What does not go together, one line each; nothing for a sensible cell."""
    if cell.import_ is not None:
        yield from _import_faults(cell)
        return
    if cell.is_basis:
        yield from _unread(
            cell, ("hook",), f"baseline: {cell.baseline} is given by the activations"
        )
        return
    if cell.baseline == "untrained":
        unread = list(
            _unread(cell, READ_UNTRAINED, "baseline: untrained is the SAE before training")
        )
        if unread:
            yield from unread
            return
    if "expansion" not in cell.model_fields_set:
        yield "expansion: missing, and it has no default"
    if cell.sha256 is not None:
        yield "sha256 is read only with import"
    for field, axis, values in READ_WHEN:
        value = getattr(cell, axis)
        if field in cell.model_fields_set and value not in values:
            name = type(cell).model_fields[field].alias or field
            yield (
                f"{name} is read only with {axis}: {' | '.join(values)}, here {axis}: {value}; "
                f"delete {name} or change {axis}"
            )
    for broken, message in RULES:
        if broken(cell):
            yield message


def _unread(cell: "Cell", read: tuple[str, ...], reason: str) -> Iterator[str]:
    for field in sorted(cell.model_fields_set - {"baseline", *read}):
        name = type(cell).model_fields[field].alias or field
        yield f"{reason}: nothing reads {name}; delete it"


def _import_faults(cell: "Cell") -> Iterator[str]:
    own = cell.model_fields_set - {"import_", "sha256", "hook"}
    for field in sorted(own):
        name = type(cell).model_fields[field].alias or field
        yield f"{name} is the imported SAE's own choice: delete it"
    if cell.sha256 is None:
        yield (
            "import needs sha256, the hash of what is imported; `sae-repro pin` fills it in for a "
            "folder"
        )
