import pytest
import torch

from robnet_fx.algebra.logits import worst_margin
from robnet_fx.errors import UsageError
from robnet_fx.verify import Limits, certify
from robnet_fx.verify.attack import attack
from robnet_fx.verify.convert import in_dtype
from tests.small import bounded, digits, moody_net, plain_net

X, Y = digits()
X, Y = X[1500:1600], Y[1500:1600]


@pytest.mark.parametrize("make", [plain_net, moody_net])
@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_no_attack_passes_a_bound(make, eps):
    net = bounded(make, eps=eps, fit=200)
    result, certificate = attack(net, X, Y), certify(net, X, Y, limits=Limits(boxes=8))
    exact = in_dtype(net, torch.float64)
    upper = exact.margins(X.double() / 255, Y).scatter(1, Y.unsqueeze(1), -torch.inf).amax(1)
    assert (result.margin <= upper + 1e-9).all()
    assert not (certificate.certified & result.adversarial).any()
    assert certificate.certified_accuracy <= result.accuracy <= certificate.clean_accuracy
    assert torch.equal(result.correct, certificate.correct)


def test_it_fools_more_than_random_fields_do():
    net = bounded(eps=0.5, fit=200)
    result = attack(net, X, Y)
    fooled = torch.zeros(len(Y), dtype=torch.bool)
    for _ in range(40):
        a = net.center + net.radius * (torch.rand(len(Y), len(net.center)) * 2 - 1)
        fooled |= worst_margin(net.perturbed(a, X / 255), Y) >= 0
    assert (result.adversarial & result.correct).sum() > (fooled & result.correct).sum()
    assert (result.adversarial | ~fooled).float().mean() > 0.97


def test_what_it_reports_is_so():
    net = bounded(eps=0.5, fit=200)
    result = attack(net, X, Y)
    exact = in_dtype(net, torch.float64)
    low, high = exact.center - exact.radius, exact.center + exact.radius
    assert ((result.coefficients >= low - 1e-15) & (result.coefficients <= high + 1e-15)).all()
    margin = worst_margin(exact.perturbed(result.coefficients, X.double() / 255), Y)
    torch.testing.assert_close(margin, result.margin, rtol=0, atol=1e-12)
    assert torch.equal(result.adversarial, result.margin >= 0)
    assert result.accuracy == pytest.approx((result.correct & (result.margin < 0)).double().mean().item())


def test_seed_and_batch_size_settle_nothing_but_speed():
    net = bounded(eps=0.5, fit=200)
    once = attack(net, X, Y, seed=1)
    again = attack(net, X, Y, seed=1)
    assert torch.equal(once.coefficients, again.coefficients)
    smaller = attack(net, X[30:50], Y[30:50], seed=1, batch_size=7)
    assert torch.equal(once.adversarial[30:50], smaller.adversarial)
    other = attack(net, X, Y, seed=2)
    assert not torch.equal(once.coefficients, other.coefficients)


def test_a_box_without_width_leaves_the_image_alone():
    net = bounded(eps=0.5, fit=200)
    net.set_eps(0.0)
    result = attack(net, X, Y, steps=2, restarts=2)
    assert result.accuracy == result.correct.double().mean()
    assert torch.equal(result.adversarial, ~result.correct)


def test_ties_count_as_fooled():
    net = bounded(eps=0.5)
    with torch.no_grad():
        net.model[-1].weight.zero_()
        net.model[-1].bias.zero_()
    result = attack(net, X[:5], Y[:5])
    assert result.adversarial.all()
    assert result.accuracy == 0


def test_steps_and_restarts_find_more():
    net = bounded(eps=0.5, fit=200)
    none = attack(net, X, Y, steps=0, restarts=1)
    full = attack(net, X, Y)
    assert none.accuracy == none.correct.double().mean()  # the centre is the clean image
    assert full.adversarial.sum() > none.adversarial.sum()


def test_fooled_samples_leave_the_batch(monkeypatch):
    net = bounded(eps=0.5, fit=200)
    sizes = []
    original = net.perturbed.forward
    monkeypatch.setattr(net.perturbed, "forward", lambda a, x: (sizes.append(len(x)), original(a, x))[1])
    attack(net, X, Y, steps=5, restarts=2)
    assert sizes[0] == len(X)
    assert sizes == sorted(sizes[:-1], reverse=True) + sizes[-1:]
    assert sizes[-2] < sizes[0]


def test_gradients_do_not_reach_the_parameters():
    net = bounded(eps=0.5, fit=200)
    attack(net, X[:8], Y[:8], steps=3, restarts=1)
    assert all(p.grad is None for p in net.model.parameters())


def test_bad_input_is_refused():
    net = bounded(eps=0.5, fit=200)
    with pytest.raises(UsageError):
        attack(net, X, Y, restarts=0)
    with pytest.raises(UsageError):
        attack(net, X, Y, steps=-1)
    with pytest.raises(UsageError):
        attack(net, X[:3], Y)
