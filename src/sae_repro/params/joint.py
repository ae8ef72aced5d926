"""Several hooks read as one: names of their activations side by side, and a crosscoder's rules.

A crosscoder reads the activations x_h [D_h] of several hooks of the same tokens as one vector of
Σ D_h entries, by one code (Lindsey et al. 2024, "Sparse Crosscoders for Cross-Layer Features and
Model Diffing", Transformer Circuits).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sae_repro.params.hooks import model_hook, stands_for, weights_of

if TYPE_CHECKING:
    from sae_repro.params.cell import Cell

JOINT = " + "
"""Between the names of hooks that are read side by side; no hook's name holds it."""


def joint(hooks: Sequence[str]) -> str:
    """The name of the activations at `hooks` side by side; of one hook, its own."""
    return JOINT.join(hooks)


def hooks_in(name: str) -> tuple[str, ...]:
    """The hooks whose activations stand side by side under `name`; one for a hook's own name."""
    return tuple(name.split(JOINT))


def is_joint(name: str) -> bool:
    """Whether `name` stands for several hooks side by side."""
    return JOINT in name


def by_model(name: str) -> str:
    """The same by the model's own names, whichever weights it is read from."""
    return joint([model_hook(hook) for hook in hooks_in(name)])


def read_by(cell: "Cell") -> str | None:
    """The name of what a cell reads; None where it says nothing, and so the first hook."""
    return cell.hook if cell.hooks is None else joint(cell.hooks)


JOINT_RULES: tuple[tuple[Callable[["Cell"], bool], Callable[["Cell"], str]], ...] = (
    (
        lambda c: c.hooks is not None and c.hook is not None,
        lambda c: "hook and hooks exclude one another: list the hook among hooks, or delete hooks",
    ),
    (
        lambda c: c.hooks is not None and len(set(c.hooks)) < len(c.hooks),
        lambda c: "hooks names one hook twice",
    ),
    (
        lambda c: c.hooks is not None and c.target_hook is not None,
        lambda c: (
            "hooks makes a crosscoder, which predicts the hooks that it reads, and target_hook a "
            "transcoder: delete one"
        ),
    ),
    (
        lambda c: c.hooks is not None and c.repeats_published_code,
        lambda c: (
            f"prefixes {c.prefixes} and revival {c.revival}: published code that is repeated here "
            "reads one hook; delete hooks, or use the choices that aren't called published"
        ),
    ),
    (
        lambda c: c.hooks is not None and len({weights_of(hook) for hook in c.hooks}) > 1,
        lambda c: (
            f"hooks = {', '.join(c.hooks or ())}: of several models, and a run holds one at a "
            "time; name hooks of one model"
        ),
    ),
)
"""(whether a cell breaks the rule, the message); they join `params.cell_rules.RULES`."""


def unextracted(cell: "Cell", extracted: Sequence[str]) -> Iterator[str]:
    """The hooks of a crosscoder that none of `extracted` stands for."""
    for hook in cell.hooks or ():
        if not any(stands_for(several, hook) for several in extracted):
            yield hook
