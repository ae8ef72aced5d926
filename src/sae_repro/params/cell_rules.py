"""The rules by which a cell's choices go together; a combination that breaks one is refused.

Facts about one value of an axis are in its row (`params.axes`); the rules here read rows.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sae_repro.params.axes import ACTIVATIONS, PENALTIES, readers
from sae_repro.params.division import division_faults
from sae_repro.params.joint import JOINT_RULES

if TYPE_CHECKING:
    from sae_repro.params.cell import Cell

# what an untrained SAE depends on beside its activation; normalisation is folded out again before
# anything was learnt
READ_UNTRAINED = ("hook", "hooks", "target_hook", "expansion", "seed", "seeds", "activation",
                  "apply_b_dec_to_input", "b_dec_init")  # fmt: skip


RULES: tuple[tuple[Callable[["Cell"], bool], Callable[["Cell"], str]], ...] = (
    (
        lambda c: c.activation_row.l0_set_by == "k" and c.k is None,
        lambda c: f"activation {c.activation} needs k, the latents per token",
    ),
    (
        lambda c: c.activation_row.l0_set_by == "k" and c.penalty != "none",
        lambda c: f"k already sets the sparsity of {c.activation}: penalty must be none",
    ),
    (
        lambda c: (
            c.activation_row.l0_set_by == "penalty" and c.penalty == "none" and c.baseline is None
        ),
        lambda c: f"nothing keeps {c.activation} sparse: set penalty to {_penalties(c)}",
    ),
    (
        lambda c: c.penalty_row.counts and c.activation_row.threshold != "trained",
        lambda c: (
            f"penalty {c.penalty} counts latents above a threshold that is trained, which only "
            f"activation {' | '.join(_with_trained_threshold())} has"
        ),
    ),
    (
        lambda c: c.penalty != "none" and c.lambda_ is None,
        lambda c: (
            "a penalty needs lambda, its weight (> 0); with target_l0 it is where the controller "
            "starts"
        ),
    ),
    (
        lambda c: c.penalty_row.needs_target_l0 and c.target_l0 is None,
        lambda c: f"penalty {c.penalty} holds L0 at L0*: give L0* as target_l0",
    ),
    (
        lambda c: (
            c.penalty_row.decoder == "unit_norm"
            and c.decoder == "free"
            and not c.repeats_published_code
        ),
        lambda c: (
            f"penalty {c.penalty} with a free decoder shrinks z and grows W_dec for nothing: use "
            "decoder: unit_norm, or penalty: l1_decoder_norm"
        ),
    ),
    (
        lambda c: c.penalty_row.decoder == "free" and c.decoder == "unit_norm",
        lambda c: f"with unit-norm rows {c.penalty} is l1: write penalty: l1, or decoder: free",
    ),
    (
        lambda c: c.seeds is not None and "seed" in c.model_fields_set,
        lambda c: "seed and seeds exclude one another: list the seed among seeds, or delete seeds",
    ),
    (
        lambda c: c.seeds is not None and len(set(c.seeds)) < len(c.seeds),
        lambda c: "seeds names one seed twice",
    ),
    (
        lambda c: c.frozen is not None and c.revival_row.resamples,
        lambda c: (
            f"revival {c.revival} gives latents directions of the data, and frozen: {c.frozen} "
            "keeps them as they were drawn: use revival: auxk or none"
        ),
    ),
    (
        lambda c: c.frozen is not None and c.order != "none",
        lambda c: f"order {c.order} moves what frozen: {c.frozen} keeps in place: delete one",
    ),
    (
        lambda c: c.skip and c.target_hook is None,
        lambda c: (
            "skip adds x·W_skip to the prediction of another hook, and of x itself it would be a "
            "copy: name that hook as target_hook, or delete skip"
        ),
    ),
    (
        lambda c: c.target_hook is not None and c.target_hook == c.hook,
        lambda c: (
            f"target_hook {c.target_hook} is hook itself, which every SAE predicts: delete it"
        ),
    ),
    (
        lambda c: c.target_hook is not None and "apply_b_dec_to_input" in c.model_fields_set,
        lambda c: (
            "apply_b_dec_to_input: b_dec of a transcoder lies among its targets, and its encoder "
            "sees x: delete one of apply_b_dec_to_input and target_hook"
        ),
    ),
    (
        lambda c: c.target_hook is not None and c.revival_row.published,
        lambda c: (
            f"revival {c.revival} repeats code that had no target_hook: use revival: resample"
        ),
    ),
    (
        lambda c: abs(sum(c.prefix_shares) - 1) > 1e-6,
        lambda c: "prefix_shares must sum to 1",
    ),
    (
        lambda c: c.prefixes_row.by_token and c.activation_row.l0_set_by != "k",
        lambda c: (
            f"prefixes {c.prefixes} costs a prefix for each latent that fires, and early in "
            f"training half of {c.activation}'s do: use an activation with k, or prefixes: random"
        ),
    ),
    (
        lambda c: c.prefix_k is not None and not _rises_to_k(c),
        lambda c: f"prefix_k must rise to k = {c.k}, without one twice",
    ),
    (
        lambda c: c.prefix_weights is not None and len(c.prefix_weights) != _n_prefixes(c),
        lambda c: (
            f"prefix_weights are {len(c.prefix_weights or ())}, prefixes {_n_prefixes(c)}: give "
            "one for each"
        ),
    ),
    (
        lambda c: c.lr_warmup + c.lr_decay > 1,
        lambda c: "lr_warmup + lr_decay must be ≤ 1: they are fractions of the same steps",
    ),
    *JOINT_RULES,
)
"""(whether a cell breaks the rule, the message)."""


def _penalties(cell: "Cell") -> str:
    """The penalties that can keep it sparse."""
    trained = cell.activation_row.threshold == "trained"
    names = [p.name for p in PENALTIES.values() if p.name != "none" and (trained or not p.counts)]
    return " | ".join(
        f"{name} (decoder: {PENALTIES[name].decoder})" if PENALTIES[name].decoder else name
        for name in names
    )


def _rises_to_k(cell: "Cell") -> bool:
    k = cell.prefix_k or ()
    return k[-1] == cell.k and list(k) == sorted(set(k))


def _n_prefixes(cell: "Cell") -> int:
    """The prefixes that weights are for."""
    if cell.prefixes == "fixed":
        return len(cell.prefix_shares)
    return len(cell.prefix_k) if cell.prefix_k is not None else cell.k or 0


def _with_trained_threshold() -> list[str]:
    return [row.name for row in ACTIVATIONS.values() if row.threshold == "trained"]


def faults(cell: "Cell") -> Iterator[str]:
    """The rules that the cell breaks, one line each; none for a sensible cell."""
    if cell.import_ is not None:
        yield from _import_faults(cell)
        return
    if cell.is_basis:
        yield from _unread(
            cell, ("hook",), f"baseline: {cell.baseline} is given by the activations"
        )
        return
    if cell.baseline == "untrained":
        read = (*READ_UNTRAINED, *cell.activation_row.reads_untrained)
        unread = list(_unread(cell, read, "baseline: untrained is the SAE before training"))
        if unread:
            yield from unread
            return
    if "expansion" not in cell.model_fields_set:
        yield "expansion: missing, and it has no default"
    if cell.sha256 is not None:
        yield "sha256 is read only with import"
    yield from _idle(cell)
    for broken, message in RULES:
        if broken(cell):
            yield message(cell)
    yield from division_faults(cell)


def width_faults(cell: "Cell", d_in: int) -> Iterator[str]:
    """What can't be on activations of `d_in` dimensions: `field = value: why`, at most one."""
    if cell.import_ is not None:
        return  # its width is known once it is read
    width, product = cell.width(d_in), f"K = {cell.expansion:g} × {d_in}"
    if width < 1:
        yield (
            f"expansion = {cell.expansion}: no latent left; at least {1 / d_in:g} (one latent at "
            f"D = {d_in})"
        )
    elif cell.k is not None and cell.k > width:
        yield f"k = {cell.k}: allowed are 1 … {width} ({product})"
    elif cell.target_l0 is not None and cell.target_l0 > width:
        yield f"target_l0 = {cell.target_l0:g}: allowed are at most {width} ({product})"
    elif width % cell.latent_shards:
        yield f"latent_shards = {cell.latent_shards}: must divide K = {width} ({product})"
    elif cell.prefixes == "fixed" and min(cell.prefix_shares) * width < 1:
        yield f"prefix_shares: the smallest group of K = {width} latents would be empty"


def _idle(cell: "Cell") -> Iterator[str]:
    """The fields that are set though no choice on their axis reads them."""
    for field, info in type(cell).model_fields.items():
        axis_and_values = readers(field)
        if field not in cell.model_fields_set or axis_and_values is None:
            continue
        axis, values = axis_and_values
        value = getattr(cell, axis)
        if value not in values:
            name = info.alias or field
            yield (
                f"{name} is read only with {axis}: {' | '.join(values)}, here {axis}: {value}; "
                f"delete {name} or change {axis}"
            )


def _unread(cell: "Cell", read: tuple[str, ...], reason: str) -> Iterator[str]:
    for field in sorted(cell.model_fields_set - {"baseline", *read}):
        name = type(cell).model_fields[field].alias or field
        yield f"{reason}: nothing reads {name}; delete it"


def _import_faults(cell: "Cell") -> Iterator[str]:
    extra = cell.model_fields_set - {"import_", "sha256", "hook"}
    for field in sorted(extra):
        name = type(cell).model_fields[field].alias or field
        yield f"{name} is the imported SAE's own choice: delete it"
    if cell.sha256 is None:
        yield (
            "import needs sha256, the hash of what is imported; `sae-repro pin` fills it in for a "
            "folder"
        )
