"""`--symbols` on the commands: what it changes, what is said, what is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import onnx
import pytest
from onnx import helper

from robnet_fx.cli.options import SYMBOLS
from robnet_fx.cli.texts import read_symbols
from robnet_fx.errors import RobnetWarning, UsageError
from robnet_fx.verify import certificate
from tests.cli.test_commands import FIELD, document, fine
from tests.cli.test_errors import refused
from tests.cli.test_perturbations import large, panel  # noqa: F401  (a fixture)
from tests.onnx_files import by_hand, weight

SHORT = ("--limit", 30)


@pytest.mark.parametrize(("text", "symbols"), [(None, None), ("all", "all"), ("0", 0), (" 256 ", 256)])
def test_numbers_and_all(text, symbols):
    assert read_symbols(text) == symbols


@pytest.mark.parametrize("text", ["-1", "many", "1.5", "", "All"])
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError, match="--symbols takes a whole number, or all"):
        read_symbols(text)


def test_more_symbols_certify_more(run, model):
    results = {
        n: run("certify", model, *FIELD, *SHORT, "--boxes", 1, "--symbols", n, "--json") for n in ("0", "4", "all")
    }
    found = {n: document(result) for n, result in results.items()}
    assert [found[n]["symbols"] for n in found] == [0, 4, "all"]
    shares = [found[n]["certified_accuracy"] for n in found]
    assert shares == sorted(shares) and shares[0] < shares[-1]
    assert "rsip-ssip, clip relu" in panel(results["0"])
    assert "rsip-ssip, 4 symbols, clip relu" in panel(results["4"])
    assert "rsip-ssip, all symbols, clip relu" in panel(results["all"])


def test_the_usual_number(run, model):
    assert document(run("certify", model, *FIELD, *SHORT, "--json"))["symbols"] == SYMBOLS
    assert document(run("inspect", model, *FIELD, "--json"))["symbols"] == SYMBOLS
    for method in ("ibp", "rsip-ibp"):
        assert document(run("certify", model, *FIELD, *SHORT, "--method", method, "--json"))["symbols"] == 0
    result = fine(run("certify", model, *FIELD, *SHORT))
    assert f"rsip-ssip, {SYMBOLS} symbols" in result.stdout


def test_robustify_judges_with_them(run, model):
    short = ("--epochs", 1, "--limit", 100, "--test-limit", 40, "--json")
    result = run("robustify", model, *FIELD, *short, "--symbols", 7)
    found = document(result)
    assert (found["symbols"], found["judged_by"], found["judged_symbols"]) == (0, "rsip-ssip", 7)
    assert "verdicts rsip-ssip, 7 symbols" in panel(result)
    written = json.loads((Path(found["files"]["run"]) / "certificate.json").read_text())
    assert (written["method"], written["symbols"]) == ("rsip-ssip", 7)
    again = document(run("certify", "net.robust.onnx", *FIELD, "--limit", 40, "--symbols", 7, "--json"))
    assert again["certified_accuracy"] == found["after"]["certified"]


@pytest.mark.parametrize("command", ["certify", "robustify", "inspect"])
@pytest.mark.parametrize("symbols", ["none", "-3"])
def test_no_number(run, model, command, symbols):
    (line,) = refused(run(command, model, *FIELD, "--symbols", symbols), 2)
    assert line == f"error: --symbols takes a whole number, or all, not '{symbols}'"


@pytest.mark.parametrize("command", ["certify", "inspect"])
@pytest.mark.parametrize("method", ["ibp", "rsip-ibp"])
def test_a_method_without_ssip(run, model, command, method):
    (line,) = refused(run(command, model, *FIELD, "--method", method, "--symbols", 8), 2)
    assert f"method {method} has no SSIP" in line and "use rsip-ssip, or no symbols" in line


@pytest.mark.parametrize("method", [(), ("--method", "rsip"), ("--method", "rsip-ssip")])
def test_noise_in_too_many_pixels(run, large, method):  # noqa: F811
    for command in ("certify", "inspect", "robustify"):
        (line,) = refused(run(command, *large, "--noise", 2, *method, "--symbols", "all"), 2)
        assert "D = 1089 is too many: leave it out" in line
    assert document(run("certify", *large, "--noise", 2, "--symbols", 0, "--json"))["symbols"] == 0


def test_the_graph_of_bounds_has_them(run, model):
    with_, without = (
        fine(run("inspect", model, "--stage", "bounds", "--code", "--symbols", n)).stdout for n in ("5", "0")
    )
    assert "born" in with_ and "born" not in without


def test_a_file_of_bounds_has_a_number_of_them(run):
    """Without the option it has none: tests/cli/test_inspect_bounds.py."""
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "W"], ["y"])]
    by_hand(Path("small.onnx"), nodes, {"W": weight(16, 3)}, inputs=[("x", 1, ["N", 1, 4, 4])])
    fine(run("inspect", "small.onnx", *FIELD, "--clip", "none", "--symbols", 3, "--onnx", "three.onnx"))
    assert {p.key: p.value for p in onnx.load("three.onnx").metadata_props}["robnet_fx.symbols"] == "3"
    line, remedy = refused(run("inspect", "small.onnx", *FIELD, "--symbols", "all", "--onnx", "all.onnx"), 2)
    assert "cannot be compiled or exported" in line and "give a number of symbols" in remedy
    assert not Path("all.onnx").exists()


def test_what_the_library_warns_of_is_shown_once(run, model, monkeypatch):
    own = certificate.decide

    def warning(*args, **kwargs):
        for _ in range(2):
            warnings.warn("memory holds 12 symbols of 99", RobnetWarning, stacklevel=2)
        return own(*args, **kwargs)

    monkeypatch.setattr(certificate, "decide", warning)
    result = fine(run("certify", model, *FIELD, *SHORT))
    assert result.stderr.count("warning: memory holds 12 symbols of 99") == 1
