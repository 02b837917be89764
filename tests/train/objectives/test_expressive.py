"""Combinations of what an adversary reaches and what is certified, by the formulas of their paper."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from robnet_fx.errors import UsageError
from robnet_fx.perturbations.base import Box
from robnet_fx.train.gradients import accumulate
from robnet_fx.train.objectives import CC, MTL, Exp
from robnet_fx.verify.ascent import climb
from tests.small import digits

X, Y = digits()
IMAGES, LABELS = (X[:30] / 255).double(), Y[:30]
KINDS = [MTL, CC, Exp]


def gradients(net, objective):
    net.model.zero_grad()
    figures = accumulate(net, IMAGES, LABELS, objective=objective, alpha=2.0, part=11)
    return float(figures.losses["robust"]), [parameter.grad.clone() for parameter in net.model.parameters()]


def combined(kind, share, z_adv, z_ver):
    """`[B]` by the formulas, with the label's column at 0."""
    zeros = torch.zeros_like(LABELS)
    entropy = [cross_entropy(z, zeros, reduction="none") for z in (z_adv, z_ver)]
    if kind is MTL:
        return (1 - share) * entropy[0] + share * entropy[1]
    if kind is CC:
        return cross_entropy((1 - share) * z_adv + share * z_ver, zeros, reduction="none")
    return entropy[0].pow(1 - share) * entropy[1].pow(share)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_loss_and_gradients_are_those_of_the_formula(net, kind, share):
    box = Box(net.center.unsqueeze(0), net.radius.unsqueeze(0))
    t = climb(net, IMAGES, LABELS, torch.zeros(1, len(net.center)), 4, box=box)
    logits = net.perturbed(net.center + net.radius * t, IMAGES)
    order = torch.stack([torch.cat([label[None], torch.arange(10)[torch.arange(10) != label]]) for label in LABELS])
    z_adv = (logits - logits.gather(1, LABELS[:, None])).gather(1, order)
    z_ver = net.margins(IMAGES, LABELS).gather(1, order)
    z_ver = torch.cat([torch.zeros_like(z_ver[:, :1]), z_ver[:, 1:]], 1)
    robust = combined(kind, share, z_adv, z_ver).mean()
    loss = cross_entropy(net.model(IMAGES), LABELS) + 2.0 * robust
    expected = torch.autograd.grad(loss, list(net.model.parameters()))
    value, got = gradients(net, kind(share=share))
    assert value == pytest.approx(robust.item(), rel=1e-9)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_smaller_part_costs_less_and_what_is_lost_costs_a_number(net):
    whole, _ = gradients(net, MTL(share=1.0))
    part, _ = gradients(net, MTL(share=1.0, cuts=8, tau=0.5))
    assert part < whole
    with torch.no_grad():
        for parameter in net.model.parameters():
            parameter.mul_(1e3)
    for kind in KINDS:
        value, got = gradients(net, kind())
        assert torch.tensor(value).isfinite() and all(bool(gradient.isfinite().all()) for gradient in got)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(UsageError, match="share"):
        CC(share=share)
