"""No value of params.yaml is converted: what a key means does not depend on how it is spelled."""

import sys
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from sae_repro.errors import StudyError, one_line, printable
from sae_repro.params import Study, Tune, check_section, layer_of, parse
from sae_repro.stage import StageContext

from .test_check import STUDY, change

INTEGERS = {True: "not true or false", 2.0: "write 2", "1": "delete the quotes", "x": "must be"}
NUMBERS = {True: "not true or false", "1": "delete the quotes", "1e-2": "delete the quotes"}


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every section within an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from sections(field.annotation)
    for part in get_args(annotation):
        yield from sections(part)


def fields() -> Iterator[tuple[type[BaseModel], str, Any]]:
    for section in dict.fromkeys([*sections(Study), *sections(Tune)]):
        for name, field in section.model_fields.items():
            yield section, field.alias or name, field.annotation


def wrong(annotation: Any) -> tuple[Any, ...]:
    """Values of another type for a field of this one."""
    parts = get_args(annotation) or ()
    inner = {get_origin(part) or part for part in parts} | {annotation}
    if bool in inner:
        texts = any(str in get_args(part) for part in parts)
        return (1, 0, 1.0) if texts else (1, 0, "true", "yes", 1.0)
    if float in inner:
        return (True, "1", "0.5")
    if int in inner:
        return (True, 1.0, 2.0, "1", "1_000")
    if str in inner:
        return (1, 1.0, True)
    return ()


@pytest.mark.parametrize(
    ("section", "name", "annotation"),
    [pytest.param(*field, id=f"{field[0].__name__}.{field[1]}") for field in fields()],
)
def test_no_field_takes_another_type(section: type[Any], name: str, annotation: Any) -> None:
    for value in wrong(annotation):
        with pytest.raises(StudyError) as caught:
            check_section(section, {name: value}, within="here")
        assert any(f"here.{name}" in line for line in str(caught.value).splitlines())


@pytest.mark.parametrize(("value", "says"), INTEGERS.items(), ids=repr)
@pytest.mark.parametrize("key", ["seed", "train/epochs", "cells/topk/k", "cells/topk/seed"])
def test_a_line_says_how_a_whole_number_is_spelled(key: str, value: Any, says: str) -> None:
    study = deepcopy(STUDY)
    change(key, value)(study)
    with pytest.raises(StudyError) as caught:
        parse(study)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"params.yaml: {key.replace('/', '.')} = ")
    assert says in str(caught.value)


@pytest.mark.parametrize(("value", "says"), NUMBERS.items(), ids=repr)
def test_a_line_says_how_a_number_is_spelled(value: Any, says: str) -> None:
    study = deepcopy(STUDY)
    change("cells/vanilla/lambda", value)(study)
    with pytest.raises(StudyError, match=says):
        parse(study)


def test_a_whole_number_is_a_number_and_a_list_a_tuple() -> None:
    study = deepcopy(STUDY)
    study["cells"]["topk"] |= {"seeds": [1, 2], "lr": 1}
    cell = parse(study).cells["topk"]
    assert (cell.seeds, cell.lr, type(cell.lr)) == ((1, 2), 1.0, float)


@pytest.mark.parametrize("key", ["cells/topk/seeds", "extract/hooks", "evaluate/references"])
def test_a_list_with_a_faulty_item_has_one_line(key: str) -> None:
    study = deepcopy(STUDY)
    change(key, [True, False])(study)
    with pytest.raises(StudyError) as caught:
        parse(study)
    assert [line.partition(" = ")[2][:5] for line in str(caught.value).splitlines()] == [
        "true:", "false"
    ]  # fmt: skip


@pytest.mark.parametrize("value", [-1, 2**63, 2**64, 10**20])
@pytest.mark.parametrize("key", ["seed", "cells/topk/seed"])
def test_seeds_are_what_every_generator_takes(key: str, value: int) -> None:
    study = deepcopy(STUDY)
    change(key, value)(study)
    with pytest.raises(StudyError, match=f"seed = {value}: must be"):
        parse(study)
    change(key, 2**63 - 1)(study)
    parse(study)


def test_no_count_overflows() -> None:
    for section, name, annotation in fields():
        if annotation is int or int in get_args(annotation):
            if name in ("low", "high"):
                continue  # of a range: its ends are values of a cell, checked as such
            with pytest.raises(StudyError, match=f"{name} = {10**20}: must be"):
                check_section(section, {name: 10**20})


@pytest.mark.parametrize(
    "hook",
    ["blocks.00.hook_mlp_out", "blocks.01.hook_mlp_out", "blocks.٣.hook_mlp_out",
     "blocks.³.hook_mlp_out", "blocks.-1.hook_mlp_out", "blocks.1.hook_mlp_out\n",
     "blocks.99999.hook_mlp_out", "untrained/untrained/blocks.1.hook_mlp_out"],
)  # fmt: skip
def test_a_layer_has_one_spelling(hook: str) -> None:
    with pytest.raises(ValueError, match="is not a hook"):
        layer_of(hook)
    with pytest.raises(StudyError, match=r"extract\.hooks\.0"):
        parse({**STUDY, "extract": {"hooks": [hook]}})


@pytest.mark.parametrize("device", ["cuda:٣", "cuda:00", "cuda:", "cuda:1\n", "CPU", "cuda:1000"])
def test_a_device_has_one_spelling(device: str) -> None:
    with pytest.raises(StudyError, match=r"train\.device"):
        parse({**STUDY, "train": {"device": device}})
    parse({**STUDY, "train": {"device": "cuda:12"}})


@pytest.mark.parametrize(
    "root",
    ["", "/", "/tmp", "../x", "a", "./", "../", "...", "..;reboot", "$(reboot)", ". ", "..\n", "~",
     "../" * 40 + ".."],
)  # fmt: skip
def test_the_root_is_nothing_that_a_shell_would_read(root: str) -> None:
    """dvc.yaml has it in its commands."""
    with pytest.raises(StudyError, match=r"params\.yaml: root"):
        parse({**STUDY, "root": root})
    for good in (".", "..", "../..", "../../../.."):
        parse({**STUDY, "root": good})


@pytest.mark.parametrize("key", ["root", "seed", "judge", "control", "recipes", "track"])
def test_what_dvc_yaml_reads_is_there(key: str) -> None:
    """DVC fails once a stage has run whose parameters it does not find."""
    with pytest.raises(StudyError, match=f"{key}: missing"):
        parse({k: v for k, v in STUDY.items() if k != key})


def test_stages_are_given_what_the_schema_took() -> None:
    spelled = StageContext("train", {
        "seed": 3, "recipes": {"a": {"expansion": 4, "lr": 1}},
        "cells": {"x": {"recipe": "a", "seeds": [1, 2]}},
        "subject": {"source": {"kind": "train"}},
    })  # fmt: skip
    assert spelled.value("seed") == 3
    assert repr(spelled.value("recipes")) == "{'a': {'expansion': 4.0, 'lr': 1.0}}"
    assert spelled.value("cells") == {"x": {"recipe": "a", "seeds": (1, 2)}}
    assert spelled.value("subject.source") == {"kind": "train"}
    for seed in (True, 1.0, "1", 2**64, -1):
        with pytest.raises(StudyError, match="seed"):
            StageContext("train", {"seed": seed}).value("seed")


def test_text_of_every_character_is_one_printable_line() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = one_line(everything)
    assert len(shown.splitlines()) == 1
    assert not set(shown) & set("\x1b\r\n\x9b\u202e\u2066\u2028\ud800\x00\x7f")
    assert {"é", "字", "\u200c", "🙂", "\\"} <= set(shown)
    assert printable("a\x1b\nb\r") == "a\\x1b\nb\\r"
    assert str(StudyError("a\x1b[2K\nb\u2028ok")) == "a\\x1b[2K\nb\\u2028ok"
