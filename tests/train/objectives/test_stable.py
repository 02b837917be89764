"""Training on errors over sampled parts, without bounds."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from robnet_fx.bounds.sampled import sampled_errors
from robnet_fx.errors import UsageError
from robnet_fx.train import Recipe, train
from robnet_fx.train.gradients import accumulate
from robnet_fx.train.objectives import Batch, Stable, objective_named
from robnet_fx.train.settings import Training
from tests.small import bounded, digits

X, Y = digits()
IMAGES, LABELS = (X[:30] / 255).double(), Y[:30]


def sampled(net, stable):
    right = torch.ones(30, dtype=torch.bool)
    batch = Batch(net, IMAGES, LABELS, right, right, stable.weights(1.0), 30)
    torch.manual_seed(0)
    with torch.no_grad():
        return (stable.sample(batch) - net.center) / net.radius


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_points_lie_in_the_box_and_corners_around_the_first(net, tau):
    t = sampled(net, Stable(tau=tau, points=4))
    assert t.shape == (5, 30, len(net.center)) and bool((t.abs() <= 1 + 1e-6).all())
    first, corners = t[0], t[1:]
    middle = (corners.amin(0) + corners.amax(0)) / 2
    spans = corners.amax(0) - corners.amin(0)
    wide = spans > 1e-9  # where not all corners are on one side
    torch.testing.assert_close(spans[wide], torch.full_like(spans[wide], 2 * tau), rtol=1e-6, atol=0)
    torch.testing.assert_close(middle[wide], first.clamp(tau - 1, 1 - tau)[wide], rtol=1e-6, atol=1e-6)
    assert wide.double().mean() > 0.7


def test_the_adversary_climbs(net):
    still, climbed = (sampled(net, Stable(steps=steps))[0] for steps in (0, 4))
    with torch.no_grad():
        before, after = (
            cross_entropy(net.perturbed(net.center + net.radius * t, IMAGES), LABELS) for t in (still, climbed)
        )
    assert after > before


@pytest.mark.parametrize("part", [None, 7])
def test_loss_and_gradients_are_those_of_the_formula(net, part):
    stable = Stable(weight=3.0)
    points = net.center + net.radius * sampled(net, stable)
    logits, errors = sampled_errors(net.perturbed, points, IMAGES)
    assert len(errors) > 2
    moved = [error for error in errors if error.requires_grad]  # not those of the clip
    adversarial, error = cross_entropy(logits[0], LABELS), torch.stack(moved).mean()
    loss = cross_entropy(net.model(IMAGES), LABELS) + 2.0 * (adversarial + 3.0 * error)
    expected = torch.autograd.grad(loss, list(net.model.parameters()))
    torch.manual_seed(0)
    net.model.zero_grad()
    figures = accumulate(net, IMAGES, LABELS, objective=stable, alpha=2.0, part=part)
    torch.testing.assert_close(figures.losses["adversarial"], adversarial.detach())
    torch.testing.assert_close(figures.losses["error"], error.detach())
    for parameter, gradient in zip(net.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-10)
    assert list(figures.counts) == ["clean"] and not figures.active.any()
    assert list(accumulate(net, IMAGES[:0], LABELS[:0], objective=stable, alpha=2.0, batch=5).counts) == ["clean"]


def test_training_lowers_the_errors_and_keeps_the_last_epoch():
    data = X[:300], Y[:300]
    recipe = Recipe.short(8, batch_size=50, lr=2e-3)
    errors = {}
    for weight in (0.0, 10.0):
        net = bounded(eps=0.3, fit=60)
        history = train(net, *data, recipe, objective=Stable(weight=weight), validation=(X[300:400], Y[300:400]))
        assert history.selected is None
        last = history.epochs[-1]
        assert last["validation_clean"] > 0.7 and {"standard", "adversarial", "error"} <= last.keys()
        assert not any("certified" in name for epoch in history.epochs for name in epoch)
        errors[weight] = last["error"]
    assert errors[10.0] < 0.7 * errors[0.0]


def test_parameters_out_of_range_and_options_without_a_use_are_refused():
    for said, reason in {
        "stable:points=0": "points >= 1",
        "stable:steps=-1": "steps >= 0",
        "stable:tau=0": "tau is a share",
        "stable:weight=nan": "weight must be finite",
    }.items():
        with pytest.raises(UsageError, match=reason):
            objective_named(said)
    for options, name in (({"symbols": 16}, "symbols"), ({"compiled": True}, "compiled")):
        with pytest.raises(UsageError, match=f"{name}: training on stable has no bounds"):
            Training(objective="stable", **options)
