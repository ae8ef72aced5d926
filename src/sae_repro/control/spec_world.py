"""Activations of a world that a spec file describes, drawn from named generators.

x = Σ_f a_f · atom_f (+ circles, bias, noise). The distribution of a is that of SynthSAEBench
(Chanin and Garriga-Alonso 2026, arXiv:2602.14687): which atoms are on is a Gaussian copula of low
rank cut at each atom's quantile, then children of absent parents go off, and of exclusive siblings
all but one, drawn evenly, level by level.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.control.worlds import Atoms, Sample
from sae_repro.errors import StudyError
from sae_repro.numerics.random import generator
from sae_repro.params.worlds import World

Floats = npt.NDArray[np.float32]

CHUNK = 1024
"""Rows drawn at once."""
L0_ROWS = 8192
"""Rows on which a world's own L0 is counted."""
LEAST_DIAGONAL = 0.01
"""Of a firing's variance, at least so much is the atom's own."""
APART_STEPS, APART_RATE, BISECTIONS = 400, 0.5, 20


@dataclass(frozen=True)
class Forest:
    """The parents of all atoms, level by level, and the siblings that exclude one another."""

    levels: tuple[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], ...]
    """(children, the parent of each) below the roots, from the top."""
    exclusive: tuple[npt.NDArray[np.int64], ...]
    """Per level, the groups [G, B] of siblings of which at most one is on; −1 where B is more
    than there are."""


@dataclass(frozen=True)
class Drawing:
    """A world whose atoms and firing are drawn: whence samples come."""

    world: World
    atoms: Atoms
    forest: Forest
    threshold_f: Floats
    """Of a standard normal variable, above which the atom is on."""
    factor_fr: Floats
    own_f: Floats
    """√ of the part of a firing's variance that no other atom shares."""
    mean_f: Floats
    spread_f: Floats
    circle_cd: tuple[Floats, Floats]
    """u and v of each circle."""
    bias_d: Floats

    def sample(self, n: int, rng: np.random.Generator) -> Sample:
        """`n` rows x [n, D] and the atoms' activations a [n, F]."""
        chunks = list(self._chunks(n, rng))
        return Sample(
            np.concatenate([x for x, _ in chunks]), np.concatenate([a for _, a in chunks])
        )

    def rows(self, n: int, rng: np.random.Generator) -> Floats:
        """x [n, D] of the same draw as `sample`, in the memory of x alone."""
        return np.concatenate([x for x, _ in self._chunks(n, rng)])

    def _chunks(self, n: int, rng: np.random.Generator) -> Iterator[tuple[Floats, Floats]]:
        for start in range(0, n, CHUNK):
            a_nf = self.activations(min(CHUNK, n - start), rng)
            yield self._embedded(a_nf, rng), a_nf

    def activations(self, n: int, rng: np.random.Generator) -> Floats:
        """a [n, F] of `n` rows."""
        on_nf = self._on(n, rng)
        return self._magnitudes(on_nf, rng)

    def _on(self, n: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        f, r = self.factor_fr.shape
        level_fn = rng.standard_normal((f, n), dtype=np.float32)  # an atom's rows are adjacent
        level_fn *= self.own_f[:, None]
        if r:
            level_fn += self.factor_fr @ rng.standard_normal((r, n), dtype=np.float32)
        on_fn: npt.NDArray[np.bool_] = level_fn > self.threshold_f[:, None]
        for (children, parents), groups in zip(
            self.forest.levels, self.forest.exclusive, strict=True
        ):
            on_fn[children] &= on_fn[parents]
            if not len(groups):
                continue
            on_gbn = on_fn[groups] & (groups >= 0)[:, :, None]
            group, row = np.nonzero(on_gbn.sum(axis=1, dtype=np.int16) > 1)
            on_cb = on_gbn[group, :, row]
            winner_c = np.where(on_cb, rng.random(on_cb.shape), -1).argmax(axis=1)
            sibling_cb = groups[group]
            loses_cb = on_cb & (np.arange(groups.shape[1]) != winner_c[:, None])
            conflict, place = np.nonzero(loses_cb)
            on_fn[sibling_cb[conflict, place], row[conflict]] = False
        return np.ascontiguousarray(on_fn.T)

    def _magnitudes(self, on_nf: npt.NDArray[np.bool_], rng: np.random.Generator) -> Floats:
        n_on = int(on_nf.sum())
        match self.world.magnitudes.noise:
            case "normal":
                noise = rng.standard_normal(n_on)
            case "uniform":
                noise = np.sqrt(12) * (rng.random(n_on) - 0.5)
            case _:
                noise = rng.standard_exponential(n_on) - 1
        column = np.nonzero(on_nf)[1]
        a_nf = np.zeros(on_nf.shape, dtype=np.float32)
        a_nf[on_nf] = np.maximum(self.mean_f[column] + self.spread_f[column] * noise, 0)
        if self.world.hierarchy is not None and self.world.hierarchy.scaled:
            for children, parents in self.forest.levels:  # from the top: a chain multiplies
                a_nf[:, children] *= a_nf[:, parents] / self.mean_f[parents]
        return a_nf

    def _embedded(self, a_nf: Floats, rng: np.random.Generator) -> Floats:
        x_nd: Floats = a_nf @ self.atoms.directions_fd + self.bias_d
        if self.world.circles is not None:
            circles, (u_cd, v_cd) = self.world.circles, self.circle_cd
            shape = len(a_nf), circles.count
            radius = np.where(rng.random(shape) < circles.frequency, circles.radius, 0.0)
            angle = 2 * np.pi * rng.random(shape)
            x_nd += (radius * np.cos(angle)).astype(np.float32) @ u_cd
            x_nd += (radius * np.sin(angle)).astype(np.float32) @ v_cd
        if self.world.noise:
            x_nd += np.float32(self.world.noise) * rng.standard_normal(x_nd.shape, np.float32)
        return x_nd


def drawing(world: World, *name: int | str) -> Drawing:
    """The atoms and the firing of `world`, of the generators `name`.

    StudyError where its atoms can't have the mean largest cosine that it asks for.
    """
    f, d = world.atoms, world.d_in

    def rng(part: str) -> np.random.Generator:
        return generator(*name, part)

    parent_f = np.array(world.parents)
    forest = _forest(world, parent_f, rng("exclusive"))
    p_f = firing_probabilities(world, forest)
    factor_fr = np.zeros((f, 0), dtype=np.float32)
    if world.correlation is not None and world.correlation.scale:
        scale, rank = world.correlation.scale, world.correlation.rank
        factor_fr = (scale * rng("correlation").standard_normal((f, rank))).astype(np.float32)
        shared_f = np.square(factor_fr).sum(1, keepdims=True)
        factor_fr *= np.sqrt(np.minimum(1, (1 - LEAST_DIAGONAL) / np.maximum(shared_f, 1e-30)))
    from scipy.special import ndtri

    made_of = world.magnitudes
    spread_f = made_of.spread + made_of.spread_sd * rng("spread").standard_normal(f)
    circles = np.zeros((2, 0, d))
    if world.circles is not None:
        q, _ = np.linalg.qr(rng("circles").standard_normal((d, 2 * world.circles.count)))
        circles = q.T.reshape(2, world.circles.count, d)
    bias = rng("bias").standard_normal(d)
    bias *= world.bias / np.linalg.norm(bias)
    return Drawing(
        world=world,
        atoms=Atoms(_directions(world, rng("atoms")), tuple(f"atom {i}" for i in range(f)),
                    parent_f),
        forest=forest,
        threshold_f=ndtri(1 - p_f).astype(np.float32),
        factor_fr=factor_fr,
        own_f=np.sqrt(1 - np.square(factor_fr).sum(1)).astype(np.float32),
        mean_f=np.linspace(made_of.first, made_of.last, f, dtype=np.float32),
        spread_f=np.abs(spread_f).astype(np.float32),
        circle_cd=(circles[0].astype(np.float32), circles[1].astype(np.float32)),
        bias_d=bias.astype(np.float32),
    )  # fmt: skip


def true_l0(world: World) -> float:
    """Mean number of atoms that are on, over `L0_ROWS` rows; the same whatever the study's seed."""
    name = "control", "world", "true l0"
    drawn = drawing(world.model_copy(update={"superposition": None}), *name)
    rng = generator(*name, "rows")
    count = sum(int((drawn.activations(CHUNK, rng) > 0).sum()) for _ in range(L0_ROWS // CHUNK))
    return count / L0_ROWS


def base_frequencies(world: World) -> npt.NDArray[np.float64]:
    """P(on) [F] that `frequencies` asks for, of the first atom to the last."""
    of, rank_f = world.frequencies, np.arange(1.0, world.atoms + 1)
    shape_f = rank_f**-of.exponent if of.kind == "zipf" else rank_f[::-1] / world.atoms
    share_f = (shape_f - shape_f[-1]) / (shape_f[0] - shape_f[-1])
    result: npt.NDArray[np.float64] = of.lowest + (of.highest - of.lowest) * share_f
    return result


def firing_probabilities(world: World, forest: Forest) -> npt.NDArray[np.float64]:
    """P(drawn on) [F], before absent parents and siblings switch atoms off.

    Compensated: P(on) over P(parent on), times 1 + Σ over exclusive siblings of theirs; at most 1.
    """
    p_f = base_frequencies(world)
    drawn_f = p_f.copy()
    if world.hierarchy is None or not world.hierarchy.compensated:
        return drawn_f
    for (children, parents), groups in zip(forest.levels, forest.exclusive, strict=True):
        drawn_f[children] /= p_f[parents]
        parent_of = dict(zip(children.tolist(), parents.tolist(), strict=True))
        for group in groups:
            siblings = group[group >= 0]
            others = p_f[siblings].sum() - p_f[siblings]
            drawn_f[siblings] *= 1 + others / p_f[parent_of[int(siblings[0])]]
    return np.minimum(drawn_f, 1.0)


def _forest(world: World, parent_f: npt.NDArray[np.int64], rng: np.random.Generator) -> Forest:
    """Of the parents with two or more children, a fraction whose children exclude one another."""
    if world.hierarchy is None:
        return Forest((), ())
    depth_f = np.zeros(len(parent_f), dtype=np.int64)
    for atom, parent in enumerate(parent_f):  # parents come before their children
        depth_f[atom] = depth_f[parent] + 1 if parent >= 0 else 0
    by_parent: dict[int, list[int]] = {}
    for child in np.flatnonzero(parent_f >= 0):
        by_parent.setdefault(int(parent_f[child]), []).append(int(child))
    eligible = [parent for parent, children in by_parent.items() if len(children) > 1]
    n = int(len(eligible) * world.hierarchy.exclusive)
    chosen = {eligible[i] for i in rng.permutation(len(eligible))[:n]}
    levels, exclusive = [], []
    for depth in range(1, int(depth_f.max()) + 1):
        children = np.flatnonzero(depth_f == depth)
        levels.append((children, parent_f[children]))
        groups = [g for p, g in by_parent.items() if depth_f[p] == depth - 1 and p in chosen]
        width = max((len(g) for g in groups), default=0)
        padded = [g + [-1] * (width - len(g)) for g in groups]
        exclusive.append(np.array(padded, dtype=np.int64).reshape(len(groups), width))
    return Forest(tuple(levels), tuple(exclusive))


def mean_largest_cosine(directions_fd: npt.NDArray[np.floating]) -> float:
    """ρ: mean over atoms of the largest |cosine| with another; rows have norm 1."""
    cosine_ff = np.abs(directions_fd @ directions_fd.T)
    np.fill_diagonal(cosine_ff, 0)
    return float(cosine_ff.max(axis=1).mean())


def _directions(world: World, rng: np.random.Generator) -> Floats:
    f, d = world.atoms, world.d_in
    drawn = rng.standard_normal((f, d))
    if f <= d:
        drawn = np.linalg.qr(drawn.T)[0].T
    unit = _unit(drawn)
    if world.superposition is not None:
        unit = _with_superposition(unit, world.superposition)
    return unit.astype(np.float32)


def _with_superposition(unit_fd: npt.NDArray[np.float64], rho: float) -> npt.NDArray[np.float64]:
    """Directions pushed apart, or drawn together in pairs, until their ρ is `rho`.

    Apart: steps down Σ max(|cos| − ρ, 0)²; together: one of each pair turned towards the other.
    StudyError for a ρ below what the steps reach.
    """
    if mean_largest_cosine(unit_fd) > rho:
        return _apart(unit_fd, rho)
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if mean_largest_cosine(_together(unit_fd, middle)) < rho
            else (low, middle)
        )  # fmt: skip
    return _together(unit_fd, low)


def _together(unit_fd: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    turned = unit_fd.copy()
    pairs = 2 * (len(turned) // 2)
    turned[1:pairs:2] += share / max(1 - share, 1e-9) * unit_fd[0:pairs:2]
    return _unit(turned)


def _apart(unit_fd: npt.NDArray[np.float64], rho: float) -> npt.NDArray[np.float64]:
    f, d = unit_fd.shape
    reached, rate = 1.0, APART_RATE * min(1.0, 10 * d / f)  # more of them push harder
    for _ in range(APART_STEPS):
        cosine_ff = unit_fd @ unit_fd.T
        np.fill_diagonal(cosine_ff, 0)
        excess_ff = np.sign(cosine_ff) * np.maximum(np.abs(cosine_ff) - 0.8 * rho, 0)
        moved_fd = _unit(unit_fd - rate * excess_ff @ unit_fd)
        reached = min(reached, mean_largest_cosine(moved_fd))
        if reached <= rho:
            return _between(unit_fd, moved_fd, rho)
        unit_fd = moved_fd
    raise StudyError(
        f"superposition = {rho:g}: {f} atoms in {d} dimensions were "
        f"pushed apart to {reached:.3g} and no further; choose more, fewer atoms, or null"
    )


def _between(
    above_fd: npt.NDArray[np.float64], below_fd: npt.NDArray[np.float64], rho: float
) -> npt.NDArray[np.float64]:
    """Of the directions between two, those of ρ `rho`, by bisection."""
    for _ in range(BISECTIONS):
        middle_fd = _unit(above_fd + below_fd)
        if mean_largest_cosine(middle_fd) > rho:
            above_fd = middle_fd
        else:
            below_fd = middle_fd
    return below_fd


def _unit(rows_fd: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = rows_fd / np.linalg.norm(rows_fd, axis=1, keepdims=True)
    return result
