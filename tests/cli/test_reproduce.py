"""`robnet-fx reproduce`: cells from fresh weights to a record, stopped anywhere, and set beside the paper's."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robnet_fx.cli.main import app
from robnet_fx.cli.texts import read_time
from robnet_fx.errors import UsageError
from robnet_fx.machine import time_limit
from robnet_fx.reproduce import judging
from robnet_fx.train import checkpoint
from tests.cli.test_commands import document, fine
from tests.stops import stop_after

STD, RS = "dm-small-std", "dm-small-rs-eps40-alpha1"


class Killed(BaseException):
    """The process ends where it is."""


def killing(work):
    """`work`, after whose first call nothing more is done."""

    def run(*args):
        work(*args)
        raise Killed

    return run


def lasting(value):
    """What a record has but for times, and where its files are; numbers as far as they do not depend on a batch."""
    passing = ("seconds", "command_line", "certify", "files", "model", "threads")
    if isinstance(value, dict):
        return {name: lasting(each) for name, each in value.items() if name not in passing}
    if isinstance(value, list):
        return [lasting(each) for each in value]
    return round(value, 9) if isinstance(value, float) else value


def read(path):
    return json.loads(Path(path).read_text())


def test_a_row_from_fresh_weights_to_records(reproduced, few):
    found = document(reproduced)
    std, rs = found["cells"]
    assert (found["table"], std["name"], rs["name"]) == ("table2", f"{STD}-eps40", RS)
    assert std["paper"] == {"clean": 0.756, "certified": 0.0945} and rs["paper"] == {"clean": 0.725, "certified": 0.564}
    names = {f"{STD}-eps40.json", f"{STD}.onnx", f"{STD}.training.json", f"{RS}.json", f"{RS}.onnx"}
    assert {file.name for file in (few / "whole").iterdir()} == {*names, f"{RS}.training.json", "work"}
    assert not [*(few / "whole" / "work").iterdir()]
    for line in (std, rs):
        cell = read(few / line["file"])
        figures = line["found"]
        assert cell["command"] == "cell" and cell["dtype"] == "float64" and cell["symbols"] == 1024
        assert {name: cell[name] for name in figures} == figures and figures["images"] == len(cell["samples"]) == 24
        assert figures["one_box_accuracy"] <= figures["certified_accuracy"] <= figures["attacked_accuracy"]
        assert line["scaled"] == ["2 of 200 epochs", "64 of 128 training images"]
        rest = [sample for sample in cell["samples"] if sample["index"] > 2]  # three are copies
        assert cell["without_copies"]["images"] == 21 and cell["without_copies"]["below"] == 8
        assert cell["without_copies"]["clean_accuracy"] == sum(sample["correct"] for sample in rest) / 21
        standard = line is std
        rates = [(phase["epochs"], phase["lr"], phase["robust"]) for phase in cell["training"]["schedule"]]
        assert rates == ([(1, 1e-3, False), (1, 1e-4, False)] if standard else [(1, 5e-4, True), (1, 5e-4, True)])
        assert cell["training"]["batch_size"] == 4 and cell["training"]["augment"]
        assert cell["training"]["images"] == {"train": 58, "validation": 6}
    assert (cell["training"]["start"]["model"], cell["training"]["start"]["epochs"]) == (f"{STD}.onnx", 2)
    assert [each["clean"] for each in read(few / "whole" / f"{RS}.training.json")["history"]]


def test_a_record_is_certified_again_from_its_weights(reproduced, few, monkeypatch):
    fine(reproduced)
    monkeypatch.chdir(few)
    cell = read(few / "whole" / f"{RS}.json")
    words = shlex.split(cell["certify"])
    again = document(CliRunner().invoke(app, [*words[1:], "--json"]))
    assert words[0] == "robnet-fx" and again["model_sha256"] == cell["model_sha256"]
    assert (again["data_sha256"], again["box"]) == (cell["data_sha256"], cell["box"])
    assert lasting(again["samples"]) == lasting(cell["samples"])


def test_killed_and_stopped_anywhere_it_ends_the_same(reproduced, few, table, monkeypatch):
    fine(reproduced)
    own = ("--cell", "std", "--out", "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", killing(checkpoint.save))
        with pytest.raises(Killed):
            table(*own)
    assert [file.name for file in (few / "stopped").iterdir()] == ["work"]
    assert (few / "stopped" / "work" / STD / "checkpoint.pt").is_file()
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        stopped = table(*own)
    assert stopped.exit_code == 130 and f"stopped at {STD}-eps40; 0 of 1 cells are done" in stopped.stderr
    assert "resume  the same command goes on from here" in stopped.stderr
    assert (few / "stopped" / f"{STD}.onnx").read_bytes() == (few / "whole" / f"{STD}.onnx").read_bytes()
    part = few / "stopped" / "work" / f"{STD}-eps40" / "0.json"
    assert sum("answer" in sample for sample in read(part)["samples"]) == 2
    with monkeypatch.context() as patch:
        patch.setattr(judging, "write_json", killing(judging.write_json))
        with pytest.raises(Killed):
            table(*own)
    assert all("answer" in sample for sample in read(part)["samples"] if sample["correct"])
    fine(table(*own))
    name = f"{STD}-eps40.json"
    assert lasting(read(few / "stopped" / name)) == lasting(read(few / "whole" / name))


def test_a_time_limit_is_ctrl_c(few, table, monkeypatch):
    """The clock is out when the first checkpoint is written."""
    timers = []

    class Clock:
        def __init__(self, seconds, interrupt):
            assert seconds == 5400
            timers.append(interrupt)

        def start(self): ...
        def cancel(self): ...

    def saved(*args):
        save(*args)
        timers.pop()()

    save = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(time_limit.threading, "Timer", Clock)
        patch.setattr(checkpoint, "save", lambda *args: saved(*args) if timers else save(*args))
        stopped = table("--cell", "std", "--out", "late", "--time-limit", "90m")
    assert stopped.exit_code == 130
    assert "stopped at dm-small-std-eps40 in epoch 2 of 2; 0 of 1 cells are done" in stopped.stderr
    assert (few / "late" / "work" / STD / "checkpoint.pt").is_file()


def test_what_is_done_is_kept_and_other_settings_are_refused(reproduced, few, table):
    fine(reproduced)
    before = {file.name: file.stat().st_mtime_ns for file in (few / "whole").iterdir()}
    fine(table("--cell", "std", "--cell", "rs", "--out", "whole"))
    assert {file.name: file.stat().st_mtime_ns for file in (few / "whole").iterdir()} == before
    refused = table("--cell", "rs", "--out", "whole", "--seed", 1)
    assert refused.exit_code == 2 and "trained with other settings: seed 0 -> 1" in refused.stderr


def test_a_standard_network_of_another_scale_is_gone_on_from(reproduced, few, table):
    """Standard training is short beside what follows, so that it may have all its epochs."""
    fine(reproduced)
    (few / "scaled").mkdir()
    for name in (f"{STD}.onnx", f"{STD}.training.json"):
        (few / "scaled" / name).write_bytes((few / "whole" / name).read_bytes())
    own = ("--out", "scaled", "--test-limit", 4, "--scale", 0.005)
    (line,) = document(table("--cell", "rs", "--json", *own))["cells"]
    counts = ["1 of 200 epochs", "2 of 200 standard epochs", "64 of 128 training images", "4 of 24 test images"]
    assert line["scaled"] == counts
    assert read(few / "scaled" / f"{RS}.json")["training"]["start"]["epochs"] == 2
    refused = table("--cell", "std", *own)
    assert refused.exit_code == 2 and "scale 0.01 -> 0.005" in refused.stderr


def test_ours_is_shown_beside_the_papers(reproduced, table):
    fine(reproduced)
    own = ("--out", "whole", "--show", "--recipe", "best")
    clean = document(reproduced)["cells"][0]["found"]["clean_accuracy"] * 100
    figures = f"{clean:.1f} (75.6, {clean - 75.6:+.1f})"
    shown = " ".join(fine(table(*own)).stdout.split())
    assert "Table 2: CIFAR-10 networks at eps 40, alpha 1" in shown and f"SC Std {figures}" in shown
    assert "2 of 200 epochs" in shown and "RI open (51.2) open (41.2) open open" in shown
    section = fine(table(*own, "--markdown")).stdout.splitlines()
    lines = [line for line in section if line.startswith("| ")]
    assert lines[2].startswith(f"| SC | Std | {figures} | ") and len(lines) == 6
    assert "without 3 test images that have near copies" in lines[3]
    assert section[-1] == "Open: SC RI, SC best."
    assert fine(table("--out", "none", "--show", "--markdown")).stdout.splitlines()[-1] == "All 3 cells are open."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table3"], "--data FOLDER with Training/<class>/ and Testing/<class>/ images"),
        (["table4"], "unknown table 'table4'; known: table1, table2, table3"),
        (["table2", "--scale", "2"], "--scale is a share of the paper's epochs, above 0 and at most 1, not 2"),
        (["table2", "--row", "XC"], "--row XC: there is none; known: SC, MC, LC"),
        (["table2", "--boxes", "0"], "--boxes must be at least 1"),
        (["table2", "--test-limit", "0"], "--test-limit must be at least 1"),
        (["table2", "--precision", "half"], "half"),
        (["table2", "--device", "tpu"], "tpu"),
        (["table2", "--out", "taken"], "cannot write into taken: it is no folder"),
        (["table2", "--time-limit", "soon"], "--time-limit takes a time such as 2h, 90m or 3600"),
        (["table2", "--show", "--json", "--markdown"], "give one of them"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["reproduce", *arguments])
    assert done.exit_code == 2 and said in done.stderr
    assert [*tmp_path.iterdir()] == [tmp_path / "taken"]


def test_times_are_read():
    assert [read_time(text) for text in ("2h", "90m", "3600", "1.5 h", "10s", None)] == [
        7200,
        5400,
        3600,
        5400,
        10,
        None,
    ]
    for text in ("0", "h", "-1", "2d", ""):
        with pytest.raises(UsageError, match="--time-limit takes"):
            read_time(text)
