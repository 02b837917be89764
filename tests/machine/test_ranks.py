"""Two processes on one machine do what one does. What they run is in tests/pair.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robnet_fx.interchange.network import write_onnx
from robnet_fx.machine import ranks
from robnet_fx.train.checkpoint import load
from tests import pair
from tests.small import bounded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def both(folder):
    """The results of either rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(pair.process, (2, port, folder), nprocs=2)
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in range(2)]


def same(a, b):
    (weights, history), (other, others) = a, b
    assert weights.keys() == other.keys()
    assert all(torch.equal(weights[k], other[k]) for k in weights)
    assert history == others


def close(a, b, tolerance=1e-9):
    (weights, history), (other, others) = a, b
    for name, value in weights.items():
        torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance)
    assert history.selected == others.selected
    for figures, expected in zip(history.epochs, others.epochs, strict=True):
        assert figures.pop("phase") == expected["phase"]
        assert figures == pytest.approx({k: v for k, v in expected.items() if k != "phase"}, rel=1e-6)


@pytest.mark.parametrize(
    "job",
    [
        pair.several_steps,
        pair.another_objective,
        pair.more_ranks_than_images,
        pair.no_active_sample,
        pair.no_correct_sample,
    ],
)
def test_two_processes_train_as_one(both, tmp_path, job):
    first, second = (results[job.__name__] for results in both)
    same(first, second)
    alone = job(tmp_path)
    close(first, alone)
    assert any(epoch["robust"] > 0 for epoch in alone[1].epochs)


def test_two_processes_guess_as_one_which_samples_are_active(both, folder, tmp_path):
    pair.several_steps(tmp_path)
    active = load(tmp_path / "exact.pt")["active"]
    assert 0 < active.sum() < len(active)
    assert torch.equal(load(folder / "exact.pt")["active"], active)


def test_random_numbers_are_a_ranks_own_and_the_common_ones_stay(both):
    (first, common), (second, others) = (results["random_numbers"] for results in both)
    assert len({*first, *second}) == 4
    torch.manual_seed(0)
    assert common == others == torch.rand(()).item()


def test_the_cases_are_what_they_are_called():
    active, certified = pair.sorted_by_verdict()
    assert len(active) == len(certified) == 10
    assert pair.RECIPE.augment and len(pair.VALIDATION[0]) % 2


def test_a_stopped_pair_resumes_bit_for_bit(both):
    for results in both:
        whole, resumed = results["moody"]
        same(whole, both[0]["moody"][0])
        for continued in resumed:
            same(continued, whole)


def test_a_stopped_pair_resumes_as_one_process(both, folder, tmp_path):
    path = shutil.copy(folder / "untouched.pt", tmp_path / "checkpoint.pt")
    assert (load(path)["epoch"], load(path)["step"]) == (1, 1)
    net = pair.exact(seed=5)
    alone = pair.trained(net, pair.X[:101], pair.Y[:101], pair.RECIPE, checkpoint=path, resume=True)
    close(alone, both[0]["stopped"])


def test_two_processes_prove_and_attack_as_one(both, tmp_path):
    found, few, coefficients = pair.proofs(tmp_path)
    assert 0 < found[2].sum() < found[1].sum() < 61
    for results in both:
        merged, merged_few, merged_coefficients = results["proofs"]
        for a, b in zip((*merged, *merged_few), (*found, *few), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
        torch.testing.assert_close(merged_coefficients, coefficients)


def test_what_one_rank_meets_all_of_them_say(both):
    for results in both:
        message, _ = results["divergence"]
        assert "diverged in epoch 1, step 1" in message
        assert "cannot write" in results["leaders_error"]
    assert "another process of this job is gone" in both[0]["a_rank_that_leaves"]


def test_one_process_is_its_own_leader(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # as some clusters set it: torchrun sets more
    with ranks.joined():
        assert (ranks.world(), ranks.rank(), ranks.leader(), ranks.part(5)) == (1, 0, True, slice(0, 5))


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 6, 100])
def test_parts_are_in_order_and_nearly_equal(monkeypatch, world, count):
    monkeypatch.setattr(ranks, "world", lambda: world)
    found = []
    for rank in range(world):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        found.append(range(count)[ranks.part(count)])
    assert [i for part in found for i in part] == list(range(count))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert count == 0 or len(found[0])


class Torchrun:
    """The command line on two ranks."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "robnet_fx"
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, *launcher, *arguments]
        self.process = subprocess.Popen(command, cwd=folder, env=environment, **streams)

    def finish(self) -> tuple[int, str, str]:
        try:
            out, err = self.process.communicate(timeout=240)
        finally:
            self.process.kill()
        return self.process.returncode, out, err


def test_the_command_line_on_two_ranks(tmp_path):
    """Ctrl-C leaves a checkpoint, and resumed, the job writes and prints one result."""
    write_onnx(bounded(fit=200).model, tmp_path / "net.onnx", pair.X[:2] / 255)
    options = "--order", "0", "--limit", "60", "--batch-size", "30", "--test-limit", "21", "--json"
    options = *options, "--objective", "equation-6"
    robustify = "robustify", "net.onnx", "--eps", "40", "--data", "digits", "--epochs", "40", *options
    run = tmp_path / "runs" / "net.robust-1"

    job = Torchrun(tmp_path, *robustify)
    while job.process.poll() is None and not (run / "checkpoint.pt").exists():
        time.sleep(0.01)
    job.process.send_signal(signal.SIGINT)
    code, out, err = job.finish()
    assert (code != 0, out) == (True, ""), err
    assert err.count("error: stopped in epoch") == 1, err
    assert err.count("--resume") == 1, err
    assert "(rank 1)" not in err

    code, out, err = Torchrun(tmp_path, *robustify, "--resume", str(run)).finish()
    assert code == 0, err
    document = json.loads(out)
    assert document["after"]["clean"] > 0.5
    assert document["files"] == {"model": "net.robust.onnx", "run": str(run)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.robust.onnx", "runs"]
    assert len(list(run.parent.iterdir())) == 1
    assert err.count("robnet-fx robustify") == 1
