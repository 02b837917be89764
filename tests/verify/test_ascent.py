from itertools import pairwise

import pytest
import torch

from robnet_fx.algebra.logits import worst_margin
from robnet_fx.perturbations.base import Box
from robnet_fx.verify.ascent import climb, starting_points
from tests.small import bounded, digits, moody_net

X, Y = digits()
IMAGES, LABELS = X[1500:1560] / 255, Y[1500:1560]


@pytest.fixture
def net():
    return bounded(eps=0.3, fit=200)


def margin(net, t, box=None):
    center, radius = box or (net.center, net.radius)
    return worst_margin(net.perturbed(center + radius * t, IMAGES[: len(t)]), LABELS[: len(t)])


def test_starts_are_the_centre_then_corners_and_inner_points():
    points = starting_points(5, 4, seed=0)
    assert points.dtype == torch.float64 and points.shape == (4, 5)
    assert not points[0].any()
    assert (points[1::2].abs() == 1).all() and points[1].unique().numel() == 2
    assert ((points[2].abs() < 1) & (points[2] != 0)).all() and points[2].min() < 0 < points[2].max()
    assert torch.equal(points, starting_points(5, 4, seed=0))
    assert not torch.equal(points, starting_points(5, 4, seed=1))


def test_it_climbs_and_stays_inside(net):
    starts = starting_points(len(net.center), 2, 0)
    t = climb(net, IMAGES, LABELS, starts, 8)
    assert t.shape == (60, len(net.center)) and t.dtype == net.center.dtype
    assert t.abs().max() == 1
    at_start = torch.stack([margin(net, start.float().expand(60, -1)) for start in starts]).amax(0)
    assert (margin(net, t) >= at_start - 1e-6).all()
    assert (margin(net, t) > at_start + 0.1).float().mean() > 0.7
    random = torch.stack([margin(net, torch.rand(60, len(net.center)) * 2 - 1) for _ in range(50)])
    assert (margin(net, t) > random.amax(0)).float().mean() > 0.8


def test_the_first_step_is_half_a_radius_and_the_last_a_hundredth(net):
    start = torch.zeros(1, len(net.center))
    here = start.expand(60, -1).clone().requires_grad_()
    uphill = torch.autograd.grad(margin(net, here).sum(), here)[0].sign()
    best = climb(net, IMAGES, LABELS, start, 1)
    after = torch.where((margin(net, 0.5 * uphill) > margin(net, here)).unsqueeze(1), 0.5 * uphill, 0.0)
    assert torch.equal(best, after)

    seen = []
    forward = net.perturbed.forward
    net.perturbed.forward = lambda a, x: (seen.append(((a - net.center) / net.radius).detach()), forward(a, x))[1]
    try:
        climb(net, IMAGES, LABELS, start, 5)
    finally:
        del net.perturbed.forward
    steps = [(b - a).abs().amax().item() for a, b in pairwise(seen)]
    assert len(seen) == 6
    assert steps == pytest.approx([0.5 * 0.02 ** (i / 4) for i in range(5)], rel=1e-4)


def test_the_worst_point_met_is_kept_though_later_ones_are_better(net):
    """From a start that is the worst already, and from one that is not."""
    good = climb(net, IMAGES, LABELS, starting_points(len(net.center), 2, 0), 20)
    again = climb(net, IMAGES, LABELS, torch.stack([good, torch.zeros_like(good)]), 0)
    assert (margin(net, again) >= margin(net, good) - 1e-6).all()
    swapped = climb(net, IMAGES, LABELS, torch.stack([torch.zeros_like(good), good]), 0)
    torch.testing.assert_close(margin(net, swapped), margin(net, again))


def test_each_sample_has_its_own_starts_and_its_own_box(net):
    generator = torch.Generator().manual_seed(0)
    dimensions = len(net.center)
    starts = torch.rand(3, 60, dimensions, generator=generator) * 2 - 1
    box = Box(
        net.center + 0.1 * torch.rand(60, dimensions, generator=generator),
        net.radius * torch.rand(60, dimensions, generator=generator),
    )
    together = climb(net, IMAGES, LABELS, starts, 3, box=box)
    for i in (0, 17, 59):
        own = Box(box.center[i : i + 1], box.radius[i : i + 1])
        alone = climb(net, IMAGES[i : i + 1], LABELS[i : i + 1], starts[:, i : i + 1], 3, box=own)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(margin(net, together, box), margin(net, together))


def test_a_fooled_sample_rests_only_where_that_will_do(net):
    net.set_eps(0.6)
    starts = starting_points(len(net.center), 2, 0)
    resting, climbing = (climb(net, IMAGES, LABELS, starts, 10, until_fooled=rest) for rest in (True, False))
    first, worst = margin(net, resting), margin(net, climbing)
    assert (worst >= first - 1e-6).all()
    fooled = first >= 0
    assert fooled.sum() > 3 and torch.equal(fooled, worst >= 0)
    assert (worst[fooled] > first[fooled]).sum() > fooled.sum() / 2
    assert torch.equal(resting[~fooled], climbing[~fooled])


def test_parameters_gradients_and_modes_are_left_alone():
    net = bounded(moody_net, eps=0.3, fit=60)
    before = {k: v.clone() for k, v in net.model.state_dict().items()}
    still = climb(net, IMAGES, LABELS, torch.zeros(1, len(net.center)), 3)
    net.model.train()
    with torch.no_grad():
        moving = climb(net, IMAGES, LABELS, torch.zeros(1, len(net.center)), 3)
    assert torch.equal(still, moving) and not moving.requires_grad  # eval semantics in either mode
    assert net.model.training
    assert all(p.grad is None for p in net.model.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.model.state_dict().items())


def test_margins_that_are_no_number_leave_the_first_start(net):
    with torch.no_grad():
        net.model[0].bias.fill_(torch.nan)
    starts = starting_points(len(net.center), 3, 0).flip(0)
    assert torch.equal(climb(net, IMAGES[:2], LABELS[:2], starts, 2), starts[0].float().expand(2, -1))
    assert climb(net, IMAGES[:0], LABELS[:0], starts, 2).shape == (0, len(net.center))


def test_where_no_coefficient_matters_it_stays(net, monkeypatch):
    """A black image is black under every field."""
    seen, forward = [], net.perturbed.forward
    monkeypatch.setattr(net.perturbed, "forward", lambda a, x: (seen.append(a.detach()), forward(a, x))[1])
    climb(net, torch.zeros_like(IMAGES[:1]), LABELS[:1], torch.full((1, len(net.center)), 0.25), 2)
    assert len(seen) == 3
    assert all(torch.equal(a[0], net.center + net.radius * 0.25) for a in seen)
