import errno
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import robnet_fx
from robnet_fx import BiasField, Problem, Training, WhiteNoise
from robnet_fx.bounds.memory import of_training
from robnet_fx.cli.texts import read_memory
from robnet_fx.errors import Interrupted, RobnetError, UsageError
from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.images.pixels import subset
from robnet_fx.images.sets import split
from robnet_fx.interchange.network import write_onnx
from robnet_fx.machine.files import sha256_of_file
from robnet_fx.machine.progress import SILENT
from robnet_fx.opening import opened
from robnet_fx.train import robustify as module
from robnet_fx.train.robustify import robustify
from robnet_fx.verify import Limits, certify
from robnet_fx.verify.score import measure
from tests.small import Data, bounded, digits

X, Y = digits()
FIELD = BiasField(1, 0.6)
FEW = Limits(boxes=8)  # parts, so that no answer hangs on the clock


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    write_onnx(bounded(fit=200).model, path, X[:2] / 255, input_name="pixels", output_name="scores")
    return path.read_bytes()


@pytest.fixture
def model(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    return path


@pytest.fixture
def job(model, tmp_path):
    """`job(epochs=1, out=...)`: settings of training and arguments of `robustify`, mixed; equation 6 is cheapest."""

    def run(model=model, data=None, problem=FIELD, **options):
        names = {field.name for field in fields(Training)}
        given = {name: options.pop(name) for name in names & options.keys()}
        training = Training(**{"objective": "equation-6", "epochs": 4, "lr": 3e-3, "batch_size": 32, **given})
        return robustify(
            model, data or Data(), problem, training, **{"runs": tmp_path / "runs", "limits": FEW, **options}
        )

    return run


def nothing_written(tmp_path):
    return sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx"]


def test_the_whole_job(job, model, tmp_path):
    original = model.read_bytes()
    result = job(objective=None)
    assert result.out == tmp_path / "net.robust.onnx"
    assert model.read_bytes() == original
    assert result.after.certified > result.before.certified + 0.05
    assert result.after.clean > result.before.clean - 0.1
    for score in (result.before, result.after):
        assert score.certified <= score.attacked <= score.clean
    assert result.images == {"train": 360, "validation": 40, "test": 100}

    # the numbers are those of the written file, and anyone gets them again from it
    again = robnet_fx.bound(result.out, robnet_fx.BiasField(1, 0.6))
    certificate = certify(again, X[1500:1600], Y[1500:1600], limits=FEW, model_file=result.out, data_notes=Data.notes)
    assert certificate.document()["data_notes"] == ["the first ones"]
    assert certificate.certified_accuracy == result.after.certified
    assert certificate.clean_accuracy == result.after.clean
    mine, theirs = certificate.document(), json.loads((result.run / "certificate.json").read_text())
    for sample in (*mine["samples"], *theirs["samples"]):
        sample.pop("seconds", None)
    assert json.loads(json.dumps(mine)) == theirs
    assert certificate.document()["model_sha256"]["file"] == sha256_of_file(result.out)

    before, after = (onnx.load(p).graph for p in (model, result.out))
    assert [str(x) for x in (*before.input, *before.output)] == [str(x) for x in (*after.input, *after.output)]

    names = {"arguments.json", "bounds.py", "certificate.json", "checkpoint.pt", "metrics.json", "weights.pt"}
    assert {p.name for p in result.run.iterdir()} == names | {"model.onnx"}
    assert result.better and (result.run / "model.onnx").read_bytes() == result.out.read_bytes()
    arguments = json.loads((result.run / "arguments.json").read_text())
    assert (arguments["eps"], arguments["seed"], arguments["data"]) == (0.6, 0, "some digits")
    assert arguments["box"]["radius"] == [0.6, 0.6 / 15, 0.6 / 15, 0.6 / 15]
    assert arguments["versions"]["torch"]
    metrics = json.loads((result.run / "metrics.json").read_text())
    assert metrics["after"]["certified"] == result.after.certified
    assert len(metrics["epochs"]) == 4

    np.save(tmp_path / "image.npy", X[1500].numpy() / np.float32(255))
    command = [sys.executable, "bounds.py", "weights.pt", tmp_path / "image.npy", "0"]
    printed = subprocess.run(command, cwd=result.run, capture_output=True, text=True, check=True).stdout
    uppers = torch.tensor([float(line.split()[-1]) for line in printed.splitlines()[1:]])
    image = torch.from_numpy(np.load(tmp_path / "image.npy"))[None]
    torch.testing.assert_close(uppers, result.net.margins(image, torch.tensor([0]))[0, 1:].detach().cpu())


def test_a_run_directory_is_never_written_over_and_a_run_repeats_itself(job, tmp_path):
    first = job(epochs=1, test_limit=20)
    content = {p.name: p.read_bytes() for p in first.run.iterdir()}
    weights = first.out.read_bytes()
    second = job(epochs=1, test_limit=20)
    assert (first.run.name, second.run.name) == ("net.robust-1", "net.robust-2")
    assert content == {p.name: p.read_bytes() for p in first.run.iterdir()}
    assert second.out.read_bytes() == weights
    assert (second.before, second.after) == (first.before, first.after)


def test_what_is_no_better_stays_in_the_run(job, tmp_path):
    target = tmp_path / "result.onnx"
    target.write_bytes(b"that of another run")
    result = job(epochs=1, lr=1e-9, limit=40, test_limit=5, out=target)  # which leaves all as it was
    assert not result.better and result.before == result.after
    assert target.read_bytes() == b"that of another run"
    assert result.out == result.run / "model.onnx" and load_onnx(result.out)
    assert json.loads((result.run / "metrics.json").read_text())["better"] is False


class Stop:
    """Presses Ctrl-C at the n-th report of a task."""

    def __init__(self, name, count):
        self.name, self.left, self.current = name, count, ""

    def task(self, name, total):
        self.current = name
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def advance(self, steps=1, **figures):
        if self.current == self.name:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_and_resume_give_the_uninterrupted_result(job, tmp_path, monkeypatch):
    short = {"epochs": 2, "test_limit": 20}
    whole = job(**short, out=tmp_path / "whole.onnx")
    with pytest.raises(Interrupted) as stopped:
        job(**short, progress=Stop("training", 17))
    checkpoint = stopped.value.checkpoint
    assert checkpoint is not None
    assert not (tmp_path / "net.robust.onnx").exists()
    measured = []
    monkeypatch.setattr(
        module, "measure", lambda *given, **options: measured.append(given) or measure(*given, **options)
    )
    resumed = job(**short, resume=checkpoint.parent)
    assert len(measured) == 1 and resumed.before == whole.before  # what was known is not measured again
    assert resumed.run == checkpoint.parent
    assert resumed.after == whole.after
    for a, b in zip(load_onnx(resumed.out).parameters(), load_onnx(whole.out).parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(UsageError, match=r"recipe\.alpha"):
        job(**short, resume=checkpoint, alpha=3.0)
    measured.clear()
    assert job(**{**short, "test_limit": 10}, resume=checkpoint).images["test"] == 10
    assert len(measured) == 2  # of other images nothing is known


def test_ctrl_c_after_training_can_be_resumed(job):
    with pytest.raises(Interrupted) as stopped:
        job(epochs=1, progress=Stop("attacking", 2))
    assert job(epochs=1, resume=stopped.value.checkpoint).after.clean > 0.5


def test_the_test_set_selects_nothing():
    """Training, validation and test images are disjoint, and the first two do not change with the test set."""
    marked = torch.arange(500).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8) / 500
    data = Data(marked[:400], torch.arange(400) % 10, marked[400:], torch.arange(100) % 10)
    train, validation, test = split(data, 300, 50, seed=1)
    ids = [set((part[0][:, 0, 0, 0] * 500).round().long().tolist()) for part in (train, validation, test)]
    assert [len(x) for x in ids] == [270, 30, 50]
    assert not (ids[0] & ids[1])
    assert ids[2] == set((subset(100, 50) + 400).tolist())
    assert all(
        bool((labels == (images[:, 0, 0, 0] * 500).round().long() % 10).all()) for images, labels in (train, test)
    )
    other = split(data, 300, 10, seed=1)
    assert torch.equal(other[1][0], validation[0])
    assert not torch.equal(split(data, 300, 50, seed=2)[1][0], validation[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_validation_images_of_the_data_validate(dtype):
    data = Data(x_train=X[:40].to(dtype), y_train=Y[:40])
    data.x_val, data.y_val = X[300:1400].to(dtype), Y[300:1400]
    train, validation, test = split(data, 30, 7, seed=0)
    index = subset(40, 30)
    assert torch.equal(train[0], data.x_train[index]) and torch.equal(train[1], data.y_train[index])
    assert len(validation[1]) == 1000 and len(test[1]) == 7
    assert torch.equal(validation[0], data.x_val[subset(1100, 1000)])
    data.x_val = data.y_val = None
    assert [len(labels) for _, labels in split(data, None, None, seed=0)] == [36, 4, 100]


def test_a_module_is_trained_in_place_and_exported(job, tmp_path):
    net = bounded(fit=200).model
    result = job(model=net, epochs=1, out=tmp_path / "own.onnx", method="rsip-ibp", limit=200, test_limit=30)
    assert result.exported == "re-export"
    assert result.net.model is net
    assert result.images == {"train": 180, "validation": 20, "test": 30}
    torch.testing.assert_close(load_onnx(result.out)(X[:5] / 255), net(X[:5] / 255), rtol=1e-4, atol=1e-4)
    assert result.certificate.document()["method"] == "rsip-ssip"  # verdicts are, whatever the training used


def test_chance_level_stops_with_the_likely_causes(job, tmp_path):
    shuffled = Data(y_train=Y[:400][torch.randperm(400)])
    with pytest.raises(UsageError, match="chance level on some digits") as error:
        job(data=shuffled)
    for cause in ("data", "normalisation", "layout", "scaling", "pretrain"):
        assert cause in str(error.value)
    assert "found" not in str(error.value)
    assert nothing_written(tmp_path)


class Scaled(nn.Module):
    """Trained on pixels of another scale."""

    def __init__(self, scale, shift):
        super().__init__()
        self.inner, self.scale, self.shift = bounded(fit=200).model, scale, shift

    def forward(self, x):
        return self.inner((x - self.shift) / self.scale)


def test_chance_level_says_what_would_help(job, tmp_path):
    with pytest.raises(UsageError, match=r"found +with inverted pixels"):
        job(model=Scaled(-1, 1), out=tmp_path / "x.onnx")


def test_what_would_help_above_chance_is_a_remark(job, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(type(SILENT), "remark", lambda self, text: said.append(text))
    job(model=Scaled(255, 0), out=tmp_path / "x.onnx", epochs=1, test_limit=10)
    assert len(said) == 1 and "--mean 0 --std 0.0039215686" in said[0]


def test_any_perturbation_and_problem(job, tmp_path):
    problem = Problem(WhiteNoise(0.1), "clamp", mean=0.1, std=(0.9,))
    result = job(problem=problem, epochs=2, limit=200, test_limit=20)
    arguments = json.loads((result.run / "arguments.json").read_text())
    assert arguments["perturbation"] == {"kind": "WhiteNoise", "eps": 0.1} and len(arguments["box"]["center"]) == 64
    assert arguments["normalisation"] == {"mean": [0.1], "std": [0.9]} and arguments["clip"] == "clamp"
    assert load_onnx(result.out).metadata["robnet_fx.mean"] == "0.1"
    assert result.history.epochs[-1]["eps"] == 0.1 and result.certificate.document()["clip"] == "clamp"


def test_arguments_are_complete(job):
    """Everything that `robustify` and its settings take is in arguments.json, by name."""
    result = job(epochs=1, limit=100, test_limit=5, objective=None, metadata={"by": "a test"})
    arguments = json.loads((result.run / "arguments.json").read_text())
    names = {*inspect.signature(robustify).parameters} - {"problem", "training", "progress"}
    names |= {field.name for kind in (Training, Problem, BiasField) for field in fields(kind)}
    assert names <= arguments.keys()
    assert (arguments["method"], arguments["order"], arguments["eps"]) == ("rsip-ssip", 1, 0.6)
    assert (arguments["epochs"], arguments["lr"], arguments["metadata"]) == (1, 3e-3, {"by": "a test"})
    assert (arguments["recipe"]["alpha"], arguments["objective"]) == (1.0, "cc:cuts=8")


def test_trained_with_symbols_and_judged_without(job):
    result = job(epochs=1, limit=100, test_limit=5, symbols=8)
    assert result.net.symbols == 8
    arguments = json.loads((result.run / "arguments.json").read_text())
    assert (arguments["symbols"], arguments["judged_symbols"]) == (8, 0)
    assert re.search(r"born\(.*\b12, 4,", (result.run / "bounds.py").read_text())  # columns, 4 of them the field's


def test_a_model_that_is_open_is_not_opened_again(model, tmp_path, monkeypatch):
    found = opened.open_model(model, Data())
    monkeypatch.setattr(opened, "open_model", None)
    monkeypatch.setattr(module, "open_model", None)
    training = Training(epochs=1, test_limit=5)
    result = module.robustify_opened(found, Problem(FIELD), training, runs=tmp_path / "runs", limits=FEW)
    assert result.net.model is found.model


def test_pretraining_starts_from_nothing(job, tmp_path):
    net = bounded(seed=5).model
    with pytest.raises(UsageError, match="chance level"):
        job(model=net, out=tmp_path / "fresh.onnx")
    result = job(model=net, out=tmp_path / "fresh.onnx", pretrain=True, epochs=8)
    assert [e["phase"].split()[0] for e in result.history.epochs] == ["standard"] * 8 + ["ramp"] * 4 + ["full"] * 4
    assert result.before.clean < 0.3 < result.after.clean


def test_bad_arguments_are_refused_before_any_work(job, model, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "trace", None)
    for options, message in [
        ({"epochs": 0}, "epochs"),
        ({"alpha": -1.0}, "alpha"),
        ({"precision": "fp8"}, "precision"),
        ({"method": "magic"}, "magic"),
        ({"out": model}, "overwrite"),
        ({"out": tmp_path}, "directory"),
        ({"out": tmp_path / "none" / "x.onnx"}, "no directory"),
        ({"device": "abacus"}, "device"),
        ({"resume": tmp_path}, "nothing to resume"),
        ({"model": tmp_path / "none.onnx"}, "none.onnx"),
    ]:
        with pytest.raises(UsageError, match=message):
            job(**options)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="a network that takes"):
        job(data=Data(x_train=torch.zeros(40, 3, 9, 9, dtype=torch.uint8)))
    assert nothing_written(tmp_path)


def test_nan_weights_are_named(job, tmp_path):
    net = bounded(fit=200).model
    with torch.no_grad():
        net[3].weight[0, 0] = torch.nan
    with pytest.raises(UsageError, match=r"3\.weight"):
        job(model=net, out=tmp_path / "x.onnx")
    assert nothing_written(tmp_path)


def test_a_full_disk_leaves_no_half_written_model(job, tmp_path, monkeypatch):
    original = os.fsync

    def full(handle):
        if ".onnx" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RobnetError, match="No space left"):
        job(epochs=1, test_limit=10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "runs"]
    monkeypatch.undo()
    run = tmp_path / "runs" / "net.robust-1"
    assert not [*run.glob("*.onnx")]
    assert job(epochs=1, test_limit=10, resume=run).run == run


def test_little_memory_means_smaller_parts_and_the_same_result(job, monkeypatch):
    """What does not fit is bounded in parts; too little for one margin is refused before any training."""
    parts = []
    original = module.train

    def watch(net, images, labels, recipe, **options):
        parts.append((recipe.micro_batch, recipe.micro_rows))
        return original(net, images, labels, recipe, **options)

    monkeypatch.setattr(module, "train", watch)
    data = Data(X[:40], Y[:40], X[1500:1520], Y[1500:1520])
    plenty = job(epochs=1, data=data)
    perturbed = bounded(eps=0.6).perturbed
    need = of_training(perturbed)
    scarce = job(epochs=1, data=data, memory=int((need.of(5) + 1) / 0.6))
    little = int((of_training(perturbed, 2).of(1) + 1) / 0.6)
    scarcer = job(epochs=1, data=data, memory=little)
    assert parts == [(None, None), (5, None), (1, 2)]
    for score in (scarce.after, scarcer.after):
        assert score.clean == pytest.approx(plenty.after.clean, abs=0.05)
    job(epochs=1, data=data, symbols=64, memory=int((need.of(5) + 1) / 0.6))
    assert 1 <= parts[-1][0] < 5  # symbols take memory
    need = of_training(perturbed, 1)
    with pytest.raises(UsageError, match="too little for one margin of one image: it takes some") as refused:
        job(epochs=1, memory=2**20 // 100)
    assert need.fits(read_memory(str(refused.value).rpartition("some ")[2])) >= 1


def test_where_an_objective_needs_all_margins_of_an_image_they_have_to_fit(job, monkeypatch):
    """What is asked for is refused; where only the estimate says so, it is a remark, for it may be wrong."""
    wanted = of_training(bounded(eps=0.6).perturbed)
    with pytest.raises(UsageError, match=r"too little for a step: one image's margins (.|\n)*small-boxes") as no:
        job(memory=2**20 // 100, objective=None)
    assert wanted.fits(read_memory(re.search("some (.*)\n", str(no.value))[1])) >= 1
    said = []
    monkeypatch.setattr(type(SILENT), "remark", lambda self, text: said.append(text))
    monkeypatch.setattr("robnet_fx.train.prepare.available_memory", lambda device: 2**20 // 100)
    result = job(epochs=1, limit=40, test_limit=5, objective="cc")
    assert len(said) == 1 and "a step may not fit into memory" in said[0]
    recipe = json.loads((result.run / "arguments.json").read_text())["recipe"]
    assert (recipe["micro_batch"], recipe["micro_rows"]) == (1, None)
