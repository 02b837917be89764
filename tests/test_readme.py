"""What the README says is run: its Python as it stands, its commands as a stranger would type them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from robnet_fx.images.pixels import subset

README = Path(__file__).parents[1] / "README.md"
JUDGED = 250  # of the 539 test images: their verdicts take half of the main job


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ robnet-fx ")]
    return [shlex.split(line)[2:] for line in lines]


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "robnet_fx", *arguments], cwd=folder, text=True, capture_output=True, check=False
    )


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = next(block for block in blocks("python") if "import robnet_fx" in block)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["margins"].shape == (4, 10)  # type: ignore[attr-defined]
    printed = capsys.readouterr().out
    excerpt = next(block for block in blocks("python") if "import robnet_fx" not in block)
    for line in excerpt.strip().splitlines():
        assert line in printed, "the excerpt of generated code is not what is generated"


def test_the_main_job_as_shown(tmp_path: Path) -> None:
    export, robustify, *_ = commands()
    assert export[:2] == ["zoo", "export"] and robustify[0] == "robustify"
    assert run(export, tmp_path).returncode == 0
    done = run([*robustify, "--test-limit", str(JUDGED), "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    before, after = result["before"], result["after"]
    assert before["clean"] >= 0.97 and before["attacked"] <= 0.75 * before["clean"]  # a field that turns a quarter
    assert after["certified"] - before["certified"] >= 0.15
    assert after["clean"] >= 0.95
    for score in (before, after):
        assert 0 <= score["attacked"] - score["certified"] <= 0.01
        assert score["one_box"] <= score["certified"] <= score["clean"]
    again = ["certify", result["files"]["model"], "--order", "3", "--eps", "120", "--limit", "60", "--json"]
    written = json.loads((tmp_path / result["files"]["run"] / "certificate.json").read_text())["samples"]
    assert sum(sample["certified"] for sample in written) / len(written) == after["certified"]
    places = {number: place for place, number in enumerate(subset(539, JUDGED).tolist())}
    for sample in json.loads(run(again, tmp_path).stdout)["samples"]:
        assert sample["certified"] == written[places[sample["index"]]]["certified"]
    (certify,) = (command for command in commands() if command[0] == "certify")
    quick = run([*certify, "--limit", "20", "--json"], tmp_path)
    assert quick.returncode == 0 and json.loads(quick.stdout)["symbols"] == 64


def test_the_commands_named_exist() -> None:
    named = set(re.findall(r"`robnet-fx (\w+)", README.read_text(encoding="utf-8"))) | {line[0] for line in commands()}
    assert named == {"robustify", "certify", "attack", "inspect", "check", "verify", "report", "reproduce", "zoo"}
    for command in named:
        assert run([command, "--help"], README.parent).returncode == 0
