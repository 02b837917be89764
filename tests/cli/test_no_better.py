"""A result of `robustify` that is no better than what came in: it is said first, and kept back."""

import json
from pathlib import Path

from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.verify.score import Score

BETTER_THAN = Score.better_than  # before the fixture lets all results pass for better


def test_it_is_said_first_and_stays_in_the_run(run, model, monkeypatch):
    monkeypatch.setattr(Score, "better_than", BETTER_THAN)
    job = ("robustify", model, "--order", 1, "--eps", 120, "--epochs", 1, "--lr", "1e-9", "--limit", 40)
    job = (*job, "--test-limit", 5, "--boxes", 4, "--data", "digits", "--training-symbols", 4)
    shown = run(*job, "--html", "page.html")
    assert shown.exit_code == 1
    assert shown.stdout.startswith("the result is no better than what came in, and stays in the run's directory\n")
    assert "error: the result is no better than what came in: " in shown.stderr
    assert "net.robust.onnx is not written" in shown.stderr
    kept = Path("runs/net.robust-1/model.onnx")
    assert str(kept) in shown.stdout and load_onnx(kept)
    assert Path("page.html").exists() and not Path("net.robust.onnx").exists()

    told = run(*job, "--json")
    found = json.loads(told.stdout)
    assert (told.exit_code, found["better"]) == (1, False)
    assert found["symbols"] == found["training"]["symbols"] == 4
    assert found["files"] == {"model": "runs/net.robust-2/model.onnx", "run": "runs/net.robust-2"}
    assert not Score(**found["after"]).better_than(Score(**found["before"]))
