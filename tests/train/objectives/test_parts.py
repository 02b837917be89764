"""Where a part of the box lies: inside it, around the worst point that was met."""

import pytest
import torch

from robnet_fx.algebra.logits import worst_margin
from robnet_fx.errors import UsageError
from robnet_fx.train.gradients import accumulate
from robnet_fx.train.objectives import Batch, Equation6, SmallBoxes
from robnet_fx.train.objectives.parts import Weakest
from tests.small import digits

X, Y = digits()
IMAGES, LABELS = (X[:40] / 255).double(), Y[:40]
EPS = 0.3


def found(net, weakest, chosen=None):
    right = net.logits(IMAGES).argmax(1) == LABELS
    batch = Batch(net, IMAGES, LABELS, right, right, {}, len(IMAGES))
    return weakest.find(batch, torch.ones(40, dtype=torch.bool) if chosen is None else chosen)


def margins(net, points):
    return worst_margin(net.perturbed(points, IMAGES), LABELS)


@pytest.mark.parametrize("cuts", [1, 2, 5])
@pytest.mark.parametrize("tau", [1.0, 0.4])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_part_lies_in_the_box_and_around_its_point(net, cuts, tau, steps):
    (center, radius), point = found(net, Weakest(cuts, tau, steps))
    widest = net.radius.argmax()
    expected = tau * net.radius
    expected[widest] /= cuts
    torch.testing.assert_close(radius, expected.expand(40, -1), rtol=1e-12, atol=0)
    assert bool(((center - net.center).abs() + radius <= net.radius * (1 + 1e-12)).all())
    assert bool(((point - center).abs() <= radius * (1 + 1e-9)).all())
    if steps or cuts > 1:
        assert not torch.equal(center, net.center.expand(40, -1)) or tau == 1 == cuts
    if steps == 0:
        assert torch.equal(point, center)


def test_the_cut_is_that_with_the_worst_middle(net):
    (center, _), _ = found(net, Weakest(cuts=4))
    widest = net.radius.argmax()
    middles = net.center.expand(4, -1).clone()
    middles[:, widest] += net.radius[widest] * torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64)
    worst = torch.stack([margins(net, middle.expand(40, -1)) for middle in middles]).argmax(0)
    torch.testing.assert_close(center, middles[worst])
    assert len(worst.unique()) > 1  # otherwise nothing was chosen


def test_the_climb_rises_and_stays_in_its_cut(net):
    (start, radius), _ = found(net, Weakest(cuts=4))
    _, point = found(net, Weakest(cuts=4, steps=6))
    assert bool(((point - start).abs() <= radius * (1 + 1e-9)).all())
    rise = margins(net, point) - margins(net, start)
    assert bool((rise >= 0).all()) and bool((rise > 0).any())


def test_who_is_not_chosen_keeps_the_box(net):
    chosen = torch.arange(40) % 2 == 0
    (center, radius), point = found(net, Weakest(2, 0.5, 2), chosen)
    assert torch.equal(center[~chosen], net.center.expand(20, -1)) and torch.equal(point[~chosen], center[~chosen])
    assert torch.equal(radius[~chosen], net.radius.expand(20, -1))
    (some, _), _ = found(net, Weakest(2, 0.5, 2))
    torch.testing.assert_close(center[chosen], some[chosen])
    (none, _), _ = found(net, Weakest(2, 0.5, 2), ~chosen & chosen)
    assert torch.equal(none, net.center.expand(40, -1))


def test_the_whole_box_is_equation_6_and_a_part_asks_less(net):
    figures, gradients = [], []
    for objective in (Equation6(), SmallBoxes(cuts=1), SmallBoxes(cuts=8)):
        net.model.zero_grad()
        figures.append(accumulate(net, IMAGES, LABELS, objective=objective, alpha=1.5))
        gradients.append([parameter.grad.clone() for parameter in net.model.parameters()])
    for whole, part in zip(gradients[0], gradients[1], strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-12)
    assert torch.equal(figures[0].active, figures[1].active)
    assert 0 < figures[2].losses["robust"] < figures[0].losses["robust"]
    assert not bool((figures[2].active & ~figures[0].active).any())  # a part of what is certified is certified
    assert figures[2].counts["certified"] > figures[0].counts["certified"]


def test_a_box_without_extent_is_the_image(net):
    net.set_eps(0.0)
    (center, radius), point = found(net, Weakest(4, 0.3, 3))
    assert torch.equal(center, net.center.expand(40, -1)) and torch.equal(point, center) and not radius.any()


@pytest.mark.parametrize("wrong", [{"cuts": 0}, {"steps": -1}, {"tau": 0.0}, {"tau": 1.5}, {"tau": float("nan")}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=r"cuts|tau"):
        SmallBoxes(**wrong)
