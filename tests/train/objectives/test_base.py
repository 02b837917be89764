from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import cross_entropy

from robnet_fx.perturbations.base import Box
from robnet_fx.train.gradients import accumulate
from robnet_fx.train.objectives import Equation6, Found, Objective, Wanted
from robnet_fx.verify.ascent import climb, starting_points
from tests.mixture import Mixture
from tests.small import bounded, digits, moody_net

X, Y = digits()
IMAGES, LABELS = (X[:40] / 255).double(), Y[:40]


def gradients(net, **options):
    net.model.zero_grad()
    figures = accumulate(net, IMAGES, LABELS, **options)
    return figures, [p.grad.clone() for p in net.model.parameters()]


def expected_gradients(net, loss):
    return torch.autograd.grad(loss, list(net.model.parameters()))


def close(got, expected):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def others(net, index):
    """Upper margins without the label's column."""
    upper = net.margins(IMAGES[index], LABELS[index])
    return upper[upper > -torch.inf].reshape(len(index), -1)


@pytest.mark.parametrize(("part", "rows"), [(None, None), (7, None), (1, 2)])
def test_whole_rows_an_adversary_and_weights_of_its_own(net, part, rows):
    """All samples get gradients, whatever the guess; rows are not split, since they do not add up."""
    objective = Mixture(share=0.3)
    t = climb(net, IMAGES, LABELS, starting_points(len(net.center), 2, 0), 2)
    logits = net.perturbed(net.center + net.radius * t, IMAGES)
    margins = others(net, torch.arange(40))
    certified = torch.cat([margins.new_zeros(40, 1), margins], 1)
    certified = cross_entropy(certified, torch.zeros_like(LABELS))
    adversarial = cross_entropy(logits, LABELS)
    standard = cross_entropy(net.model(IMAGES), LABELS)
    loss = 0.5 * standard + 2.0 * (0.3 * certified + 0.7 * adversarial)
    likely = torch.zeros(40, dtype=torch.bool)
    figures, got = gradients(net, objective=objective, alpha=2.0, likely=likely, part=part, rows=rows)
    close(got, expected_gradients(net, loss))
    values = {"standard": standard, "robust": certified, "adversarial": adversarial}
    for name, value in values.items():
        torch.testing.assert_close(figures.losses[name], value, rtol=1e-9, atol=1e-12)
    assert list(figures.losses) == ["standard", "robust", "adversarial", "surviving"]
    right = net.logits(IMAGES).argmax(1) == LABELS
    assert round(float(figures.losses["surviving"]) * 40) == (logits.argmax(1) == LABELS).sum() > 0
    proved = (margins < 0).all(1)
    assert torch.equal(figures.active, ~proved)
    assert (figures.counts["clean"], figures.counts["certified"]) == (right.sum(), (right & proved).sum())


def test_a_standard_phase_knows_no_objective(net, monkeypatch):
    monkeypatch.setattr(Mixture, "accumulate", None)
    figures, got = gradients(net, objective=Mixture(), alpha=2.0, robust=False)
    standard = cross_entropy(net.model(IMAGES), LABELS)
    close(got, expected_gradients(net, standard))
    assert figures.weights == {"standard": 1.0, "robust": 0.0, "adversarial": 0.0, "surviving": 0.0}
    assert [float(loss) for loss in figures.losses.values()] == [pytest.approx(standard.item()), 0, 0, 0]
    assert not figures.active.any() and figures.counts["certified"] == 0


def test_a_rank_without_samples_has_figures_of_the_same_names(net):
    full = accumulate(net, IMAGES, LABELS, objective=Mixture(), alpha=2.0)
    none = accumulate(net, IMAGES[:0], LABELS[:0], objective=Mixture(), alpha=2.0, batch=40)
    assert list(none.losses) == list(full.losses) and list(none.counts) == list(full.counts)
    assert none.weights == full.weights
    assert all(value == 0 for value in (*none.losses.values(), *none.counts.values())) and len(none.active) == 0


def test_the_adversary_is_looked_for_in_eval_semantics_without_gradients():
    seen = []

    @dataclass(frozen=True)
    class Curious(Equation6):
        def wanted(self, batch):
            assert not torch.is_grad_enabled()
            assert not any(module.training for module in batch.net.model.modules())
            before = [p.grad.clone() for p in batch.net.model.parameters()]
            seen.append(climb(batch.net, batch.images, batch.labels, torch.zeros(1, len(batch.net.center)), 3))
            assert all(torch.equal(a, p.grad) for a, p in zip(before, batch.net.model.parameters(), strict=True))
            return super().wanted(batch)

    net = bounded(moody_net, fit=60)
    results = []
    for objective in (Equation6(), Curious()):
        net.model.zero_grad()
        torch.manual_seed(0)
        accumulate(net, IMAGES.float(), LABELS, objective=objective, alpha=1.0)
        results.append([p.grad.clone() for p in net.model.parameters()])
    assert len(seen) == 1 and seen[0].any()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@dataclass(frozen=True)
class Boxed(Equation6):
    """Equation 6 over boxes that are given, of every other sample."""

    box: Box | None = None

    def wanted(self, batch):
        return Wanted(batch.right & (torch.arange(len(batch.right)) % 2 == 0), self.box)


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("rows", [None, 4])
def test_every_part_is_bounded_over_its_own_boxes(net, count, rows):
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(2, count, len(net.center), generator=generator, dtype=torch.float64)
    box = Box(net.center + net.radius * (shares[0] - 0.5), net.radius * (1 + shares[1]))
    wanted = (net.logits(IMAGES).argmax(1) == LABELS) & (torch.arange(40) % 2 == 0)
    own = Box(*(part if count == 1 else part[wanted] for part in box))
    margins = net.margins(IMAGES[wanted], LABELS[wanted], own)
    standard = cross_entropy(net.model(IMAGES), LABELS)
    likely = torch.arange(40) % 4 == 0
    figures, got = gradients(net, objective=Boxed(box), alpha=1.5, part=3, rows=rows, likely=likely)
    close(got, expected_gradients(net, standard + 1.5 * margins.relu().sum() / 40))
    active = torch.zeros(40, dtype=torch.bool)
    active[wanted] = (margins > 0).any(1)
    assert torch.equal(figures.active, active) and active.any()
    assert figures.counts["certified"] == wanted.sum() - active.sum() > 0
    assert not torch.allclose(margins, net.margins(IMAGES[wanted], LABELS[wanted]))


def test_samples_that_are_not_wanted_are_neither_certified_nor_active(net):
    figures = accumulate(net, IMAGES, LABELS, objective=Boxed(), alpha=1.0)
    everybody = accumulate(net, IMAGES, LABELS, alpha=1.0)
    even = torch.arange(40) % 2 == 0
    assert torch.equal(figures.active, everybody.active & even) and figures.active.any()
    assert 0 < figures.counts["certified"] < everybody.counts["certified"]
    assert figures.counts["clean"] == everybody.counts["clean"]


def test_a_nan_bound_certifies_nothing(net, monkeypatch):
    original = net.margins_in_parts
    monkeypatch.setattr(net, "margins_in_parts", lambda *a, **o: (part * torch.nan for part in original(*a, **o)))
    figures = accumulate(net, IMAGES, LABELS, alpha=1.0)
    assert figures.counts["certified"] == 0
    assert figures.active.sum() == figures.counts["clean"]
    assert figures.losses["robust"].isnan()


def test_what_an_objective_must_say_itself():
    with pytest.raises(NotImplementedError):
        Objective().losses(Found(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), None))
    assert Objective().weights(0.25) == {"standard": 1.0, "robust": 0.25}  # equation 7
