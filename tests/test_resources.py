"""SAE_REPRO_RESOURCES: what is read, refused, and how many jobs fit a node."""

import pytest

from sae_repro.errors import StudyError
from sae_repro.resources import Resources, resources

NODE = {"CPU": 16.0, "GPU": 2.0, "memory": 64e9}


@pytest.mark.parametrize(
    ("setting", "expected", "fit"),
    [
        ("", Resources(), 16),
        ("cpus=3", Resources(cpus=3), 5),
        ("cpus=0.5", Resources(cpus=0.5), 32),
        ("cpus=2, gpus=0.5 memory=8GB", Resources(2, 0.5, 8 * 10**9), 4),
        ("memory=20GB", Resources(memory=20 * 10**9), 3),
        ("gpus=4", Resources(gpus=4), 0),
    ],
)
def test_a_setting_is_read_and_counts_how_often_it_fits(
    setting: str, expected: Resources, fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAE_REPRO_RESOURCES", setting)
    assert resources() == expected
    assert expected.fit(NODE) == fit
    assert Resources(gpus=1).fit({"CPU": 4.0}) == 0, "a node without any"


def test_three_thirds_are_a_whole() -> None:
    assert Resources(gpus=0.3333333333).fit({"CPU": 9.0, "GPU": 1.0}) == 3


@pytest.mark.parametrize(
    "setting", ["2", "cpus=0", "cpus=1.5", "memory=8", "cpus=1GB", "cpus=1 cpus=2", "ram=8GB"]
)
def test_what_is_no_share_is_refused(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAE_REPRO_RESOURCES", setting)
    with pytest.raises(StudyError, match=r"^SAE_REPRO_RESOURCES = "):
        resources()


def test_a_share_is_given_to_ray_by_its_names() -> None:
    assert Resources().of_a_task() == {"num_cpus": 1}
    whole = Resources(2, 0.5, 10**9)
    assert whole.of_a_task() == {"num_cpus": 2, "num_gpus": 0.5, "memory": 10**9}
    assert str(whole) == "cpus=2 gpus=0.5 memory=1GB"
