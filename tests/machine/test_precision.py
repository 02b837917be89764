"""What training may round to, and that nothing of it reaches a verdict."""

import copy
from functools import partial
from operator import attrgetter

import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.machine.precision import full_precision, training_precision
from robnet_fx.train import Phase, Recipe, train
from robnet_fx.train.gradients import accumulate
from robnet_fx.verify import Limits, certify
from tests.small import bounded, digits

BACKENDS = ("cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv")


def now() -> list[str]:
    return [attrgetter(name)(torch.backends).fp32_precision for name in BACKENDS]


@pytest.mark.parametrize(
    ("context", "inside"),
    [
        (full_precision, ["ieee"] * 4),
        (partial(training_precision, "float32"), ["ieee"] * 4),
        (partial(training_precision, "tf32"), ["tf32", "tf32", "ieee", "ieee"]),
        (partial(training_precision, "bf16"), ["tf32", "tf32", "ieee", "ieee"]),
    ],
)
def test_products_round_as_said_and_as_before_afterwards(context, inside):
    before = now()
    with pytest.raises(ZeroDivisionError), context():
        assert now() == inside
        raise ZeroDivisionError
    assert now() == before


def both(dtype=torch.float32):
    """Figures and gradients of the same batch in both precisions of bounds."""
    x, y = digits()
    made = []
    for precision in ("float32", "bf16"):
        net = bounded(eps=0.4, fit=60).to(dtype)
        net.set_eps(0.4)
        net.model.zero_grad()
        figures = accumulate(net, (x[:40] / 255).to(dtype), y[:40], alpha=1.0, precision=precision)
        made.append((figures, torch.cat([p.grad.flatten().double() for p in net.model.parameters()])))
        net.float()
    return made


def test_bfloat16_bounds_are_near_and_their_gradient_points_the_same_way():
    (exact, gradient), (rough, other) = both()
    near, there = rough.losses["robust"], exact.losses["robust"]
    assert near.dtype == there.dtype == torch.float32
    assert 0 < abs(near - there) < 0.02 * there
    assert torch.equal(
        rough.losses["standard"], exact.losses["standard"]
    )  # the cross entropy and what is correct are as ever
    assert rough.counts["clean"] == exact.counts["clean"]
    assert torch.cosine_similarity(gradient, other, dim=0) > 0.99


def test_a_network_in_float64_stays_in_it():
    (exact, gradient), (same, other) = both(torch.float64)
    assert torch.equal(exact.losses["robust"], same.losses["robust"])
    torch.testing.assert_close(gradient, other, rtol=1e-12, atol=0)


def test_a_users_own_autocast_reaches_neither_bounds_nor_verdicts():
    x, y = digits()
    net = bounded(eps=0.4, fit=60)

    def found():
        verdict = certify(net, x[:40], y[:40], limits=Limits(boxes=4), dtype=None)
        return net.margins(x[:8] / 255, y[:8]), (verdict.predicted, verdict.margin, verdict.certified)

    with torch.autocast("cpu", torch.bfloat16):
        margins, verdicts = found()
    outside, same = found()
    assert torch.equal(margins, outside)
    for a, b in zip(verdicts, same, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_bounds_follow_the_weights_inside_a_users_own_autocast():
    """Its cache would keep the old ones, rounded."""
    x, y = digits()
    net = copy.deepcopy(bounded(eps=0.4, fit=60))
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            for weight in net.model.parameters():
                weight.data *= 0.5
            (inside,) = net.margins_in_parts(x[:8] / 255, y[:8], precision="bf16")
    (outside,) = net.margins_in_parts(x[:8] / 255, y[:8], precision="bf16")
    assert torch.equal(inside, outside)


def test_training_computes_its_bounds_as_the_recipe_says_and_verdicts_do_not(monkeypatch):
    x, y = digits()
    net, seen = bounded(fit=60), []
    original = net.margins_in_parts

    def watch(images, labels, box=None, *, precision="float32", **options):
        for part in original(images, labels, box, precision=precision, **options):
            seen.append((precision, now()[0]))
            yield part

    monkeypatch.setattr(net, "margins_in_parts", watch)
    upper_rows = net.upper_rows
    monkeypatch.setattr(net, "upper_rows", lambda *args: (seen.append(("float32", now()[0])), upper_rows(*args))[1])
    phases = (Phase("full", 1, 1e-3),)
    for precision in ("float32", "tf32", "bf16"):
        train(net, x[:32], y[:32], Recipe(phases, batch_size=32, precision=precision), validation=(x[32:40], y[32:40]))
    assert set(seen) == {("float32", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")}
    assert seen[-1] == ("float32", "ieee")  # the validation's
    seen.clear()
    certify(net, x[:8], y[:8], dtype=None)
    assert set(seen) == {("float32", "ieee")}


def test_a_precision_nobody_knows_is_refused():
    with pytest.raises(UsageError, match="unknown precision 'fp8'; known: float32, tf32, bf16"):
        Recipe((Phase("full", 1, 1e-3),), precision="fp8")
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        next(bounded().margins_in_parts(digits()[0][:2] / 255, digits()[1][:2], precision="fp8"))
