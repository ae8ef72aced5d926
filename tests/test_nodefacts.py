"""Nodes against the machine with the study: what refuses, what warns, and what is all the same."""

from dataclasses import replace

import pytest

from sae_repro.errors import StudyError
from sae_repro.nodefacts import Facts, check_node, facts, warnings_on
from sae_repro.numerics.kernels import CHOSEN

HERE = Facts(
    node="here", python="3.11", code="c", package="p", libraries={"numpy": "2.4", "torch": "2.9"},
    processor="x86_64, A", flags=frozenset({"avx2", "fma"}),
)  # fmt: skip


def test_a_machine_is_like_itself() -> None:
    found = facts(["sae_repro.train.job", "__main__"])
    check_node(found, facts(["__main__", "sae_repro.train.job"]), "itself")
    assert "numpy" in found.libraries
    assert found.code != facts(["sae_repro.control.job"]).code


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"python": "3.12"}, "Python 3.12, here 3.11"),
        ({"code": "d"}, "other code of sae-repro for these jobs"),
        ({"package": "q"}, "other code of sae-repro for what travels"),
        ({"libraries": {"numpy": "2.3", "torch": "2.9"}}, "numpy 2.3, here 2.4"),
        ({"libraries": {"numpy": "2.4"}}, "torch missing, here 2.9"),
        ({"libraries": {str(n): "1" for n in range(9)}}, "and 8 more libraries"),
    ],
)
def test_another_code_or_lock_refuses(change: dict[str, object], said: str) -> None:
    with pytest.raises(StudyError, match=f"^node N has .*{said}.*install there"):
        check_node(replace(HERE, **change), HERE, "N")


def test_another_processor_passes_and_warns_where_bits_are_native(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = replace(HERE, node="there", processor="x86_64, B")
    check_node(other, HERE, "N")
    monkeypatch.setenv(CHOSEN, "portable")
    assert not list(warnings_on(other, HERE, "N"))
    monkeypatch.setenv(CHOSEN, "native")
    [line] = warnings_on(other, HERE, "N")
    assert "x86_64, B; here x86_64, A" in line
    assert not list(warnings_on(replace(HERE, node="there"), HERE, "N"))


def test_portable_bits_warn_where_the_node_has_no_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOSEN, "portable")
    [line] = warnings_on(replace(HERE, flags=frozenset({"asimd"})), HERE, "N")
    assert "no AVX2" in line
