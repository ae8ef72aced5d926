"""Errors of the hub: one line that says what to do."""

from pathlib import Path
from typing import Any

import pytest

from sae_repro.errors import StudyError
from sae_repro.hub import fetching, reachable
from sae_repro.params import HubSubject
from sae_repro.subject.download import download

MODEL = HubSubject(kind="hub", name="someone/model", revision="c" * 40, d_model=16, n_layers=2)


@pytest.mark.parametrize("answer,code", [(404, "RepoNotFound"), (404, "RevisionNotFound")])
def test_a_missing_repository_is_not_a_network_error(
    hub: Any, tmp_path: Path, answer: int, code: str
) -> None:
    hub.answer, hub.code = answer, code
    with pytest.raises(StudyError, match=r"someone/model at c+: the hub .* has no such") as caught:
        download(MODEL, tmp_path)
    assert "hf auth login" in str(caught.value)
    assert "can't be reached" not in str(caught.value)


def test_a_failing_hub_is_a_network_error(hub: Any, tmp_path: Path) -> None:
    hub.answer, hub.code = 403, ""
    with pytest.raises(StudyError, match=r"can't be reached .*403"):
        download(MODEL, tmp_path)


def test_a_time_out_is_a_network_error(hub: Any) -> None:
    import httpx2

    reachable("the weights")
    message = r"the weights: .* can't be reached \(too slow\)"
    with pytest.raises(StudyError, match=message), fetching("the weights"):
        raise httpx2.ReadTimeout("too slow")
