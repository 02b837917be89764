"""docs/record.md against what the commands print: every key is documented, and every documented key is printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import helper

from robnet_fx.interchange.vnnlib import write_vnnlib
from robnet_fx.verify.curves import lines
from robnet_fx.verify.record import SCHEMA, VERSION, record
from tests.cli.test_commands import FIELD, document
from tests.gaps import Gappy, forgetful  # noqa: F401  (a fixture)
from tests.onnx_files import by_hand, exported

PAGE = Path(__file__).parents[2] / "docs" / "record.md"
COMMANDS = ("robustify", "certify", "attack", "check", "inspect", "verify", "reproduce", "cell")


def documented() -> dict[tuple[str, str], tuple[bool, str]]:
    """(command, key) -> (whether it may be missing, type)."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 4 and cells[0].startswith("`"):
            commands = COMMANDS if cells[1] == "all" else cells[1].split(", ")
            for key, optional in re.findall(r"`([^`]+)`(\??)", cells[0]):
                found |= {(command, key): (bool(optional), cells[2]) for command in commands}
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths to what is no object, `[]` for a list of objects; an empty object or list is a leaf."""
    if isinstance(value, dict) and value:
        for name, entry in value.items():
            yield from leaves(entry, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for entry in value:
            yield from leaves(entry, f"{path}[]")
    else:
        yield path, value


KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "numbers": list, "strings": list}


def check_type(path: str, value: Any, said: str) -> None:
    kinds = [kind for word, kind in KINDS.items() if word in re.split(r"\W+", said)]
    allowed = tuple(entry for kind in kinds for entry in (kind if isinstance(kind, tuple) else (kind,)))
    if value is None:
        assert "null" in said, path
    elif allowed:
        assert isinstance(value, allowed), (path, value, said)


@pytest.mark.usefixtures("forgetful")
def test_every_key_is_documented_and_every_documented_key_is_printed(run, model, reproduced, few):
    short, image = ("--limit", 5), ("--image", 1, "--html", "page.html")
    quick = "--method", "ibp", "--clip", "none", "--onnx", "bounds.onnx"
    hard = "--order", 1, "--limit", 20, "--leaves", "--json"
    several = document(run("certify", model, "--eps", "150,250", *hard))
    first, last = lines(several)  # a line is documented as the record of one eps
    (row,) = (line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `curve`?"))
    assert all(
        each.keys() == set(re.findall("`([a-z_]+)`", row)) - {"curve", "perturbation"} for each in several["curve"]
    )
    documents = [
        document(run("certify", model, "--eps", 250, "--largest", *hard)),
        first | {"curve": []},
        last,
        document(run("attack", model, *FIELD, *short, "--steps", 2, "--json")),
        document(run("robustify", model, *FIELD, "--epochs", 1, "--limit", 60, "--test-limit", 5, "--json")),
        document(run("check", model, "--json")),
        document(run("inspect", model, "--stage", "passes", "--json")),
        document(run("inspect", model, *FIELD, *image, "--json")),
        document(run("inspect", model, *FIELD, *quick, "--json")),
    ]
    nodes = [helper.make_node("Det", ["x"], ["y"])]
    by_hand(Path("strange.onnx"), nodes, inputs=(("x", 1, ["N", 4]),))
    documents.append(json.loads(run("check", "strange.onnx", "--json").stdout))
    write_vnnlib("p.vnnlib", torch.zeros(64), torch.ones(64), 0, 10)
    documents.append(document(run("verify", model, "p.vnnlib", "--boxes", 1, "--json")))
    exported(Gappy().eval(), Path("gappy.onnx"), dynamo=True, dynamic=True, opset=18, size=(1, 8, 8))
    documents.append(json.loads(run("check", "gappy.onnx", "--json").stdout))

    documents.append(document(reproduced))
    documents += [json.loads((few / line["file"]).read_text()) for line in documents[-1]["cells"]]

    keys = documented()
    printed: set[tuple[str, str]] = set()
    for found in documents:
        command = found["command"]
        assert (found["schema"], found["version"]) == (SCHEMA, VERSION)
        here = set()
        for path, value in leaves(found):
            own = {key for name, key in keys if name == command}
            maps = [key for key in own if path.startswith(f"{key}.") and "by name" in keys[command, key][1]]
            inside = {key for key in own if key.startswith((f"{path}.", f"{path}[]"))}  # it is empty, or null
            assert path in own or maps or inside, f"{command}: {path} is not documented"
            if path in own and value not in ({}, []):
                check_type(path, value, keys[command, path][1])
            here |= {path, *maps, *inside}
        printed |= {(command, path) for path in here}
        missing = {key for (name, key), (optional, _) in keys.items() if name == command and not optional} - here
        if "--stage" not in found and found.get("coverage", 1) is not None:
            missing -= {"nodes[].operation"} if command == "inspect" else set()
            assert not missing, f"{command}: {missing} is documented and not printed"
    never = {pair for pair in keys if pair not in printed}
    assert not never, f"documented and never printed: {sorted(never)}"


def test_a_record_keeps_its_order_and_lets_later_parts_overrule():
    made = record("certify", {"a": 1, "b": 2}, {"c": 3, "a": 4})
    assert list(made) == ["schema", "version", "command", "a", "b", "c", "versions"]
    assert made["a"] == 4 and made["versions"]["robnet-fx"]
    again = record("attack", {**made, "samples": []}, {"d": 5})
    assert list(again)[-4:] == ["c", "versions", "d", "samples"] and again["command"] == "attack"


@pytest.mark.parametrize("command", ["certify", "attack"])
def test_what_is_hashed_is_what_was_judged(run, model, command):
    one, other = (document(run(command, model, *FIELD, "--limit", n, "--json")) for n in (3, 4))
    assert one["model_sha256"] == other["model_sha256"] and one["data_sha256"] != other["data_sha256"]
