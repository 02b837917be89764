"""SSIP that starts anew from RSIP where all paths meet: where that is, that it is sound, and what it is good for."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField, UsageError, WhiteNoise
from robnet_fx.algebra.domains import Symbolic
from robnet_fx.bounds import anchors, rows
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.bounds.plan import plan
from robnet_fx.bounds.rows import Anchored, parallel
from robnet_fx.testing import check_sound
from tests.soundness import draws

FIELD = BiasField(1, 0.05, True, True)


class Block(nn.Module):
    """Expand, gate by squeeze-and-excite, project, add: what MobileNet and EfficientNet are made of."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand, self.project = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.squeeze, self.excite = nn.Linear(2 * width, 2), nn.Linear(2, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.silu(self.expand(x))
        return x + self.project(y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y)))))


def gated(blocks: int = 3, width: int = 5) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), *(Block(width) for _ in range(blocks)), nn.Linear(width, 3)).double()


def images(number: int = 3, width: int = 5) -> Tensor:
    return 0.2 + 0.6 * torch.rand(number, 1, width, dtype=torch.float64)


def compiled(model: nn.Module, method: str = "rsip-anchored", perturbation=FIELD) -> BoundedModel:
    return robnet_fx.bound(model, perturbation, method, clip=None, example=images())


def anchored_values(net: BoundedModel) -> list[str]:
    found = plan(net.perturbed, net.method).anchors
    return [node.name for node in net.perturbed.graph.nodes if node in found]


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anchors as close to each other as can be: small networks have them then too."""
    monkeypatch.setattr(anchors, "_APART", 0)


# --- where ----------------------------------------------------------------------------------------------------------


def test_blocks_end_in_anchors():
    """Nothing inside of a block, for not all paths pass there, and not the last sum, which nothing relaxes."""
    assert anchored_values(compiled(gated())) == ["add", "add_1"]
    assert anchored_values(compiled(gated(), "rsip-ssip")) == []


def test_a_chain_has_an_anchor_every_third_weight_where_it_is_narrow():
    def anchors_of(*layers: nn.Module) -> list[str]:
        return anchored_values(compiled(nn.Sequential(nn.Flatten(), *layers).double()))

    def linear(*sizes: int) -> list[nn.Module]:
        return [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]

    bent = [layer for each in linear(5, 8, 8, 8, 8, 8, 8, 8) for layer in (each, nn.Tanh())]
    assert anchors_of(*bent, nn.Linear(8, 3)) == ["linear_2", "linear_5"]
    assert anchors_of(*bent[:4], *linear(8, 9, 2, 8), nn.Tanh(), nn.Linear(8, 3)) == ["linear_3"]


def test_what_is_too_wide_is_no_anchor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(anchors, "_MOST", 4)
    assert anchored_values(compiled(gated())) == []


def test_a_perturbation_with_too_many_coefficients_is_refused():
    with pytest.raises(UsageError, match="rsip-anchored carries one coefficient for each of 5000"):
        robnet_fx.bound(
            nn.Sequential(nn.Flatten(), nn.Linear(5000, 2)),
            WhiteNoise(0.1),
            "rsip-anchored",
            example=torch.rand(2, 1, 5000),
        )


# --- sound ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, "clamp"])
def test_it_is_sound_at_every_node(clip, everywhere):
    check_sound(gated(), BiasField(1, 0.3, True, True), images(2), clip=clip, methods=["rsip-anchored"])


def test_two_lines_of_different_slope_and_slack_are_enclosed():
    r = draws(3)
    upper = Symbolic(r(2, 3, 8), r(2, 8).abs() * 4, r(2, 8).abs())
    lines = parallel(upper)
    t = torch.cat([r(200, 3).clamp(-1, 1), r(100, 3).sign()])
    along = torch.einsum("td,bdn->tbn", t, upper.coef) + upper.const
    highest, lowest = (along + upper.slack)[..., :4], -(along + upper.slack)[..., 4:]
    middle = torch.einsum("td,bdn->tbn", t, lines.coef) + lines.const
    where = highest >= lowest  # a value between them exists
    assert bool(((highest <= middle + lines.slack + 1e-12) | ~where).all())
    assert bool(((lowest >= middle - lines.slack - 1e-12) | ~where).all())
    exact = parallel(
        Symbolic(torch.cat([upper.coef, -upper.coef], 2), torch.cat([upper.const, -upper.const], 1), 0 * r(2, 16))
    )
    torch.testing.assert_close(exact, Symbolic(upper.coef, upper.const, torch.zeros(2, 8).double()))


class Backward(nn.Module):
    """Stands for RSIP of rows: the units' own lines, and `loose [n]` above them."""

    def __init__(self, lines: Symbolic, loose: Tensor) -> None:
        super().__init__()
        self.lines, self.loose = lines, loose

    def forward(self, image: Tensor, units: Tensor, center: Tensor, radius: Tensor) -> Symbolic:
        coef = (units @ self.lines.coef.transpose(1, 2)).transpose(1, 2)
        const = (units @ self.lines.const.unsqueeze(2)).squeeze(2) + units.abs() @ self.loose
        return Symbolic(coef, const, torch.zeros_like(const))


def test_the_tighter_lines_are_taken_unit_by_unit():
    r = draws(4)
    slack = torch.tensor([[0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.5, 0.0]]).double()
    old = Symbolic(r(2, 3, 4), r(2, 4), slack)
    loose = torch.tensor([0.1, 0.2, 0.7, 0.0]).double()
    got = Anchored(Backward(old, loose).eval(), widest=4)(r(2, 1), old, r(1, 3), r(1, 3))
    torch.testing.assert_close(got.coef, old.coef)
    torch.testing.assert_close(got.const, old.const)
    torch.testing.assert_close(got.slack, torch.tensor([[0, 0.2, 0.5, 0.0], [0.1, 0.2, 0.5, 0.0]]).double())


def test_lines_that_are_no_numbers_are_replaced():
    r = draws(5)
    lines, nan = Symbolic(r(1, 3, 2), r(1, 2), torch.zeros(1, 2).double()), torch.full((1, 2), torch.nan).double()
    got = Anchored(Backward(lines, torch.zeros(2).double()), widest=2)(
        r(1, 1), lines._replace(slack=nan), r(1, 3), r(1, 3)
    )
    torch.testing.assert_close(got, lines)


def test_samples_do_not_depend_on_their_batch(everywhere):
    x = images(6)
    net = compiled(gated())
    together, alone = net.probe(x), [net.probe(x[i : i + 1]) for i in range(len(x))]
    for node, kinds in together.items():
        for kind, bounds in kinds.items():
            for side in (0, 1):
                torch.testing.assert_close(bounds[side], torch.cat([one[node][kind][side] for one in alone]))


def test_in_chunks_it_is_the_same(monkeypatch: pytest.MonkeyPatch):
    x, net = images(), compiled(gated())
    whole = net.intermediate(x)
    monkeypatch.setattr(rows, "_BUDGET", 1)
    for node, pre in net.intermediate(x).items():
        torch.testing.assert_close(pre, whole[node])


def test_gradients_flow():
    model = gated()
    compiled(model).margins(images(), torch.tensor([0, 1, 2])).clamp(min=-1).sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


# --- what for -------------------------------------------------------------------------------------------------------


def test_slack_does_not_grow_from_block_to_block():
    """SSIP multiplies its slack by |W| layer after layer; an anchor puts in its place what RSIP knows."""
    model, x, spec = gated(blocks=8), images(), torch.eye(3, dtype=torch.float64).expand(3, -1, -1)
    with torch.no_grad():
        for weight in (parameter for parameter in model.parameters() if parameter.dim() == 2):
            weight.mul_(3)
    widths = {}
    for method in ("rsip-ssip", "rsip-anchored", "rsip"):
        lower, upper = compiled(model, method, BiasField(1, 0.01)).bounds(x, spec)
        widths[method] = float((upper - lower).detach().mean())
    assert widths["rsip-anchored"] < 0.3 * widths["rsip-ssip"]
    assert widths["rsip-anchored"] < 1.1 * widths["rsip"]


def test_where_nothing_is_loose_nothing_changes():
    """No unit changes sides in so small a box, so that there is no slack and not one row to bound."""
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Linear(5, 5), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(5, 3)).double()
    x = images()
    plain, anchored = (compiled(model, method, BiasField(1, 1e-9)) for method in ("rsip-ssip", "rsip-anchored"))
    assert anchored_values(anchored)
    for node, pre in plain.intermediate(x).items():
        assert all(map(torch.equal, pre, anchored.intermediate(x)[node]))
