"""A judge behind an endpoint: recorded once by the pipeline, its answers serve every clone."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sae_repro.files import sha256_folder

from ..judge.conftest import KEY, Endpoint, Response, completion
from .conftest import Checkout

pytestmark = pytest.mark.slow

CONCEPTS = "judge: {extremes: 5,"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.close()


def answering(_: int, prompt: str) -> Response:
    """Flags for lists, a label or a description for everything else; it repeats the key."""
    count = prompt.partition("a list of ")[2].partition(" ")[0]
    flags = [i % 2 for i in range(int(count))] if count else f"words, says {KEY}"
    return completion(str(flags))


def test_answers_are_recorded_once_and_replayed_from_what_dvc_keeps(
    finished: Checkout, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.script = answering
    checkout = finished.copy(tmp_path / "asking")
    http = (
        f"judge: {{kind: http, model: some-model, base_url: '{endpoint.url}', key_env: SOME_KEY, "
        "requests_per_minute: 600_000, extremes: 5,"
    )
    checkout.change(CONCEPTS, http)
    output = checkout.repro(SOME_KEY=KEY, no_proxy="127.0.0.1")
    assert checkout.ran(output) == ["judge", "compare", "report", "track"]
    requests = len(endpoint.prompts)
    record = checkout.folder / "judge/answers.jsonl"
    assert requests == record.read_bytes().count(b"\n") > 30
    assert checkout.ran(checkout.repro()) == [], "what was recorded makes nothing stale"
    assert KEY not in output
    written = [p for p in checkout.folder.rglob("*") if p.is_file()]
    assert checkout.folder / "mlflow.db" in written
    assert not [p for p in written if KEY.encode() in p.read_bytes()]

    checkout.change("requests_per_minute: 600_000", "requests_per_minute: 600_001")
    checkout.repro("judge", SOME_KEY=KEY, no_proxy="127.0.0.1")
    assert len(endpoint.prompts) == requests, "the record outlives a re-run"
    checkout.change("requests_per_minute: 600_001", "requests_per_minute: 600_000")
    checkout.repro()

    # elsewhere: outs from DVC's cache, as `dvc pull` brings them; no endpoint, no key
    endpoint.close()
    clone = checkout.copy(tmp_path / "clone", "artifacts", "judge", ".sae-repro", "mlflow.db")
    # git brings the package of that name back
    subprocess.run(["git", "checkout", "-q", "src"], cwd=clone.folder, check=True)
    subprocess.run(["dvc", "checkout", "-q"], cwd=clone.folder, env=clone.environment(), check=True)
    assert (clone.folder / "judge/answers.jsonl").read_bytes() == record.read_bytes()
    assert clone.ran(clone.repro("compare")) == []
    clone.change("kind: http", "kind: replay")
    assert clone.ran(clone.repro("judge")) == ["judge"]
    judged = "artifacts/judge"
    assert sha256_folder(clone.folder / judged) == sha256_folder(checkout.folder / judged)
