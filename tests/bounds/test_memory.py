"""The estimates against what small real runs allocate, by torch's own profiler: within a factor of 3."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from robnet_fx import BiasField, WhiteNoise, bound
from robnet_fx.bounds.memory import Memory, of_training, of_verdicts
from tests.onnx_files import Residual
from tests.small import plain_net


def peak(work: Callable[[], object]) -> int:
    """The most bytes that `work` holds at once beyond what was there before."""
    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as run:
        work()
    events = [event for event in run.profiler.kineto_results.events() if event.name() == "[memory]"]
    level = worst = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        worst = max(worst, level)
    return worst


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


CASES = [
    (plain_net, (1, 8, 8), BiasField(0, 0.1), "rsip-ssip", 0),
    (plain_net, (1, 8, 8), BiasField(3, 0.1), "rsip-ssip", 0),
    (plain_net, (1, 8, 8), BiasField(3, 0.8), "rsip-ssip", 30),
    (Residual, (3, 8, 8), BiasField(0, 0.1), "rsip-ssip", 0),
    (Residual, (3, 8, 8), BiasField(3, 0.1), "rsip-ssip", 0),
    (Residual, (3, 8, 8), BiasField(3, 0.8), "rsip-ssip", 30),
    (pooled, (1, 8, 8), BiasField(0, 0.1), "rsip-ssip", 0),
    (pooled, (1, 8, 8), BiasField(3, 0.1), "rsip-ssip", 0),
    (pooled, (1, 8, 8), BiasField(3, 0.8), "rsip-ssip", 100),
    (pooled, (1, 8, 8), WhiteNoise(0.1), "rsip-ibp", 0),
    (Residual, (3, 8, 8), WhiteNoise(0.1), "rsip-ibp", 0),
]


@pytest.mark.parametrize(("make", "size", "perturbation", "method", "symbols"), CASES)
def test_the_estimates_hold_on_real_runs(make, size, perturbation, method, symbols):
    net = bound(make().eval(), perturbation, method, example=torch.rand(2, *size), symbols=symbols)
    images, labels = torch.rand(8, *size), torch.arange(8) % net.classes

    def training() -> None:
        net.margins(images, labels).clamp(min=-100).sum().backward()
        net.zero_grad()

    need = of_training(net.perturbed, symbols=symbols, method=method)
    assert 1 / 3 < 8 * need.image / peak(training) < 3
    net.double()
    images = images.double()
    need = of_verdicts(net.perturbed, symbols, method)
    with torch.no_grad():
        assert 1 / 3 < 8 * need.image / peak(lambda: net.margins(images, labels)) < 3


def test_a_batch_that_fits():
    need = Memory(fixed=1000, image=100)
    assert need.of(8) == 1800
    assert need.fits(10_000) == 50
    assert need.of(need.fits(10_000)) <= 6000
    assert need.fits(1000) == 0


def test_weights_with_their_gradients_and_moments_are_counted():
    net = bound(plain_net(), BiasField(0, 0.1), example=torch.rand(2, 1, 8, 8))
    parameters = sum(p.numel() for p in net.parameters())
    assert of_training(net.perturbed).fixed == 4 * 6 * parameters
    assert of_verdicts(net.perturbed).fixed == 8 * 2 * parameters
