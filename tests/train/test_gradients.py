import pytest
import torch
from torch import nn

import robnet_fx
from robnet_fx.train.gradients import accumulate
from tests.small import bounded, digits, moody_net, plain_net, quiet_net


def gradients(net, *args, **options):
    net.model.zero_grad()
    figures = accumulate(net, *args, **options)
    return figures, [p.grad.clone() for p in net.model.parameters()]


def test_misclassified_samples_add_only_their_cross_entropy():
    x, y = digits()
    net = bounded(eps=0.3, fit=60)
    images, labels = x[:40] / 255, y[:40]
    right = net.logits(images).argmax(1) == labels
    assert 0 < right.sum() < 40
    figures, got = gradients(net, images, labels, alpha=2.0)
    standard = nn.functional.cross_entropy(net.model(images), labels)
    robust = net.margins(images[right], labels[right]).relu().sum() / 40
    assert robust > 0
    net.model.zero_grad()
    (standard + 2.0 * robust).backward()
    torch.testing.assert_close(figures.losses["standard"] + 2.0 * figures.losses["robust"], standard + 2.0 * robust)
    for a, p in zip(got, net.model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)
    assert (int(figures.counts["clean"]), figures.losses["standard"].item()) == (
        int(right.sum()),
        pytest.approx(standard.item()),
    )


def test_no_bounds_are_built_when_no_sample_is_correct(monkeypatch):
    x, _ = digits()
    net = bounded(fit=200)
    wrong = (net.logits(x[:20] / 255).argmax(1) + 1) % 10
    monkeypatch.setattr(net, "margins_in_parts", None)
    figures = accumulate(net, x[:20] / 255, wrong, alpha=1.0)
    assert figures.losses["robust"] == figures.counts["clean"] == figures.counts["certified"] == 0


def test_certified_samples_add_only_their_cross_entropy():
    x, y = digits()
    net = bounded(eps=0.0, fit=200)  # at eps 0 every correct sample is certified
    figures, got = gradients(net, x[:20] / 255, y[:20], alpha=5.0)
    assert figures.losses["robust"] == 0
    assert figures.counts["certified"] == figures.counts["clean"] > 0
    _, alone = gradients(net, x[:20] / 255, y[:20], alpha=0.0, robust=False)
    assert all(torch.allclose(a, b) for a, b in zip(got, alone, strict=True))


def test_correct_is_judged_in_eval_mode_and_ties_are_wrong():
    x, y = digits()
    net = bounded(moody_net)
    with torch.no_grad():
        net.model[-1].weight.zero_()
        net.model[-1].bias.zero_()
    figures = accumulate(net, x[:8] / 255, y[:8], alpha=1.0)
    assert figures.counts["clean"] == 0  # all logits equal

    net = bounded(moody_net, fit=200)
    figures = accumulate(net, x[:64] / 255, y[:64], alpha=1.0)
    assert figures.counts["clean"] == (net.logits(x[:64] / 255).argmax(1) == y[:64]).sum()


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_use_the_statistics_the_bounds_were_computed_with(frozen):
    """The trap: batch norm in train mode overwrites its running statistics without bumping their version."""
    x, y = digits()
    net = bounded(quiet_net, eps=0.2)
    images, labels = (x[:16] / 255).double(), y[:16]
    labels = net.logits(images).argmax(1)  # all correct in eval mode, as far as the statistics stay close
    before = net.model[1].running_mean.clone()
    _, got = gradients(net, images, labels, alpha=1.0, frozen=frozen)
    assert torch.equal(before, net.model[1].running_mean) == frozen
    right = net.logits(images).argmax(1) == labels  # with the statistics the step left behind
    assert right.any()
    net.model.zero_grad()
    hinge = net.margins(images[right], labels[right]).relu().sum() / 16
    standard_net = net.model.train()
    for module in standard_net.modules():
        if frozen and isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.eval()
    robust = torch.autograd.grad(hinge, list(net.model.parameters()), allow_unused=True)
    standard = torch.autograd.grad(
        nn.functional.cross_entropy(standard_net(images), labels), list(net.model.parameters())
    )
    for a, s, r in zip(got, standard, robust, strict=True):
        torch.testing.assert_close(a, s + (0 if r is None else r))


def test_a_standard_phase_keeps_batch_norm_learning():
    x, y = digits()
    net = bounded(moody_net)
    before = net.model[1].running_mean.clone()
    accumulate(net, x[:16] / 255, y[:16], alpha=1.0, robust=False)
    assert not torch.equal(before, net.model[1].running_mean)


def test_normalisation_reaches_the_standard_loss():
    x, y = digits()
    images = x[:16] / 255
    net = robnet_fx.bound(
        plain_net(), robnet_fx.BiasField(0, 0.1), mean=[0.3], std=[0.5], example=torch.rand(2, 1, 8, 8)
    )
    figures = accumulate(net, images, y[:16], alpha=0.0, robust=False)
    assert figures.losses["standard"].item() == pytest.approx(
        nn.functional.cross_entropy(plain_net()((images - 0.3) / 0.5), y[:16]).item()
    )


@pytest.fixture
def exact():
    """`bounded` in float64; the network, which is shared, is put back."""
    nets = []

    def make(**options):
        nets.append(bounded(**options).double())
        return nets[-1]

    yield make
    for net in nets:
        net.float()


@pytest.mark.parametrize(("part", "rows"), [(None, None), (1, None), (3, 4), (None, 2)])
@pytest.mark.parametrize("guess", ["all", "none", "some", "right"])
def test_neither_the_guess_nor_the_parts_change_the_gradient(guess, part, rows, exact):
    """The plain step, all correct samples with gradients at once, is the reference; in float64, to 1e-9."""
    x, y = digits()
    net = exact(eps=0.15, fit=60)
    images, labels = (x[:40] / 255).double(), y[:40]
    right = net.logits(images).argmax(1) == labels
    margins = net.margins(images[right], labels[right])
    active = torch.zeros(40, dtype=torch.bool)
    active[right] = (margins > 0).any(1)
    assert 0 < active.sum() < right.sum() < 40
    net.model.zero_grad()
    (nn.functional.cross_entropy(net.model(images), labels) + 1.5 * margins.relu().sum() / 40).backward()
    expected = [p.grad.clone() for p in net.model.parameters()]
    likely = {"all": None, "none": torch.zeros_like(active), "some": torch.arange(40) % 2 == 0, "right": active}[guess]
    figures, got = gradients(net, images, labels, alpha=1.5, likely=likely, part=part, rows=rows)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert torch.equal(figures.active, active)
    assert (figures.counts["clean"], figures.counts["certified"]) == (right.sum(), (right & ~active).sum())


def test_gradients_are_built_for_active_samples_only(monkeypatch):
    """With a perfect guess every bound is built once, and with gradients only where they are not zero."""
    x, y = digits()
    net = bounded(eps=0.15, fit=60)
    images, labels = x[:40] / 255, y[:40]
    active = accumulate(net, images, labels, alpha=1.0).active
    built = []
    original = net.margins_in_parts

    def watch(part, labels, **options):
        built.append((torch.is_grad_enabled(), len(part)))
        return original(part, labels, **options)

    monkeypatch.setattr(net, "margins_in_parts", watch)
    right = int((net.logits(images).argmax(1) == labels).sum())
    accumulate(net, images, labels, alpha=1.0, likely=active)
    assert built == [(False, right - int(active.sum())), (True, int(active.sum()))]
