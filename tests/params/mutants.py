"""Damaged and hostile spellings of a params.yaml, from a seed."""

import json
import random
from collections.abc import Callable
from typing import Any

ESCAPED = (
    r'"\e[2K\rok: 9 cells"',
    r'"x\nok: 9 cells"',
    r'"\u202eslleo 9 :ko"',
    r'"a\0b"',
    r'"\x9b31m"',
)
ODD = (
    "true", "null", "~", "-1", "0", "1", "1.0", '"1"', '"1_000"', "1e-2", "1e400", "-.inf", ".nan",
    "1e-320", "0x_", "0o17", "0b1", "1:30", "1_0", "9" * 5000, "1" + "0" * 20, str(2**64),
    str(2**63), "-" + "9" * 30, "0x" + "f" * 3000, "2001-01-01", "2001-99-99", "=", "<<", "_",
    "...", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!python/object:os.system {}",
    "!x y", "[]", "{}", "[[1]]", "{a: {b: {c: 1}}}", "{? [1, 2] : 3}", "{1: 2, true: 3, null: 4}",
    "&a [*a]", "&b {c: *b}", "*nowhere", "&c [1, 2]", "{<<: [{a: 1}, 3]}", "[" * 50, "[" * 5000,
    "x" * 20_000, "y" * 900, "'a\tb'", "٣", "blocks.٣.hook_mlp_out", "blocks.01.hook_mlp_out",
    "blocks.0.hook_mlp_out", "untrained/blocks.0.hook_mlp_out", "../../../etc/passwd", "/dev/zero",
    "$(reboot)", "; reboot", "..", "../..", "cuda:٣", "http://u:p@h/", "nul\\0", *ESCAPED,
)  # fmt: skip
"""Spellings that stand where a value does; many are no YAML, or nothing that a study may hold."""

LAUGHS = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
MERGES = "\n".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 12))
AROUND = (
    "%YAML 1.1\n---\n{}", "{}\n---\na: 1\n", "a0: &a0 [x]\n" + LAUGHS + "\n{}",
    "m0: &m0 {{k: 1}}\n" + MERGES.replace("{", "{{").replace("}", "}}") + "\n{}", "{}\n\x00",
    "{}\n\x1b[2Kok: 9 cells\n", "\ufeff{}", "- {}", "x: [{}", "{}\n" + "- " * 3000, "#{}", "{}\n{}",
)  # fmt: skip


def mutant(rng: random.Random, study: dict[str, Any], text: str) -> bytes:
    """A file that was once the `study` whose YAML is `text`."""
    way: Callable[..., bytes] = rng.choice([_structural, _structural, _structural, _bytes, _framed])
    return way(rng, study, text)


def _bytes(rng: random.Random, study: dict[str, Any], text: str) -> bytes:
    content = bytearray(text.encode())
    for _ in range(rng.choice([1, 1, 2, 5, 40])):
        at = rng.randrange(len(content))
        match rng.randrange(5):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at:at] = rng.choice(ODD).encode()
            case 2:
                del content[at : at + rng.choice([1, 2, 10])]
            case 3:
                content[at:at] = content[at : at + rng.choice([1, 5, 60])]
            case _:
                content[at] = rng.choice(b"{}[]&*!|>'\"%@`:-,?#\t\n\r\x00\x1b\xff")
    return bytes(content)


def _framed(rng: random.Random, study: dict[str, Any], text: str) -> bytes:
    return rng.choice(AROUND).replace("{{", "{").replace("}}", "}").replace("{}", text).encode()


def _structural(rng: random.Random, study: dict[str, Any], text: str) -> bytes:
    changed = json.loads(json.dumps(study))
    tokens: list[str] = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        parent, key = rng.choice(list(_places(changed)))
        match rng.randrange(6):
            case 0:
                del parent[key]
            case 1:  # another place's value
                other, there = rng.choice(list(_places(changed)) or [(parent, key)])
                if other is not parent:
                    parent[key] = json.loads(json.dumps(other[there]))
            case 2 if isinstance(parent, dict):  # a key that is hostile, or another's
                tokens.append(rng.choice([*ODD, "expansion", "kind", "seed", "k", "recipe"]))
                parent[f"@{len(tokens) - 1}@"] = parent.pop(key) if rng.random() < 0.5 else 1
            case _:
                tokens.append(rng.choice(ODD))
                parent[key] = f"@{len(tokens) - 1}@"
        if not changed:
            break
    spelled = json.dumps(changed)
    for number, token in enumerate(tokens):
        spelled = spelled.replace(f'"@{number}@"', f" {token} ")
    return spelled.encode()


def _places(value: Any) -> Any:
    """(its parent, its key) of each value in a tree."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
