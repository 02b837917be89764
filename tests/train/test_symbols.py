"""Training on bounds that keep error symbols: gradients, parts of a batch, precisions, compilation, settings."""

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from robnet_fx import BiasField, Training, bound
from robnet_fx.errors import UsageError
from robnet_fx.train import Phase, Recipe, train
from robnet_fx.train.gradients import accumulate
from tests.onnx_files import Residual
from tests.small import digits

EPS = 0.8
BUDGETS = [0, 3, 40, 400]  # none, all taken by the first layers, by some of the last one, and more than errors


@cache
def compiled(symbols, dtype):
    return bound(fresh(dtype), BiasField(1, EPS), example=torch.rand(2, 3, 8, 8, dtype=dtype), symbols=symbols)


def fresh(dtype):
    torch.manual_seed(0)
    return Residual().eval().to(dtype)


def residual(symbols, dtype=torch.float64):
    """A residual network with its bounds, generated once, and its first weights."""
    net = compiled(symbols, dtype)
    net.model.load_state_dict(fresh(dtype).state_dict())
    net.model.zero_grad()
    return net


def images(count=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    x[:, :, :3] = x[:, :, :3].clamp(min=0.5) - 0.5  # black pixels, over which the clip has an error
    return x.to(dtype), torch.arange(count) % 5


def loss_and_gradients(net, x, labels, **options):
    net.model.zero_grad()
    figures = accumulate(net, x, labels, alpha=2.0, **options)
    loss = figures.losses["standard"] + 2.0 * figures.losses["robust"]
    return loss, figures, [p.grad.clone() for p in net.model.parameters()]


def correct(net, x):
    return net.logits(x).argmax(1)


@pytest.mark.parametrize("symbols", BUDGETS)
def test_the_gradient_of_a_step_by_differences(symbols):
    net = residual(symbols)
    x, _ = images()
    labels = correct(net, x)
    _, figures, gradients = loss_and_gradients(net, x, labels)
    assert figures.active.any() and figures.losses["robust"] > 0
    torch.manual_seed(2)
    start = [p.detach().clone() for p in net.model.parameters()]
    for _ in range(3):
        directions = [torch.randn_like(p) for p in start]
        ends = []
        for step in (1e-8, -1e-8):  # few units change their line so near by
            with torch.no_grad():
                for p, old, d in zip(net.model.parameters(), start, directions, strict=True):
                    p.copy_(old + step * d)
            ends.append(loss_and_gradients(net, x, labels)[0])
        expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        assert (ends[0] - ends[1]) / 2e-8 == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("part", "rows"), [(1, None), (4, 3)])
@pytest.mark.parametrize("guess", ["all", "none"])
def test_neither_the_guess_nor_the_parts_change_the_gradient(guess, part, rows):
    """Though every part of a batch has as many columns as its own samples take."""
    net = residual(40)
    x, _ = images()
    labels = correct(net, x)
    _, figures, expected = loss_and_gradients(net, x, labels)
    likely = None if guess == "all" else torch.zeros(len(x), dtype=torch.bool)
    _, again, got = loss_and_gradients(net, x, labels, part=part, rows=rows, likely=likely)
    assert torch.equal(again.active, figures.active)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


class Forked(nn.Module):
    """The fewest layers whose errors meet at a sum."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(192, 40), nn.Linear(40, 40), nn.Linear(40, 5)

    def forward(self, x):
        x = torch.relu(self.first(x.flatten(1)))
        return self.last(x + torch.relu(self.second(x)))


def test_compiled_bounds_are_the_eager_ones():
    """No graph break, and one graph whatever the size of a batch: a budget is a number of columns."""
    plain = bound(Forked().eval(), BiasField(1, EPS), clip=None, example=torch.rand(2, 3, 8, 8), symbols=40)
    net = copy.deepcopy(plain)
    counter = CompileCounterWithBackend("aot_eager")
    net.compile(backend=counter, fullgraph=True)
    for count in (6, 4):
        x, labels = images(count, torch.float32)
        made = []
        for each in (plain, net):
            each.model.zero_grad()
            margins = torch.cat(list(each.margins_in_parts(x, labels, precision="float32")), 1)
            margins.relu().sum().backward()
            made.append([margins.detach(), *(p.grad for p in each.model.parameters())])
        for eager, fused in zip(*made, strict=True):
            torch.testing.assert_close(fused, eager, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.parametrize("symbols", BUDGETS)
def test_bounds_in_bfloat16_guide_alike(symbols):
    net = residual(symbols, torch.float32)
    x, _ = images(dtype=torch.float32)
    labels = correct(net, x)
    exact, _, expected = loss_and_gradients(net, x, labels)
    rough, _, got = loss_and_gradients(net, x, labels, precision="bf16")
    assert rough == pytest.approx(float(exact), rel=0.05)
    a, b = (nn.utils.parameters_to_vector(each) for each in (got, expected))
    assert torch.cosine_similarity(a, b, 0) > 0.99


def test_symbols_are_a_number_and_need_a_method_that_keeps_them():
    assert Training().symbols == 0
    with pytest.raises(UsageError, match='must be a number in training, not "all"'):
        Training(symbols="all")
    with pytest.raises(UsageError, match="whole number"):
        Training(symbols=-1)
    with pytest.raises(UsageError, match="no SSIP"):
        Training(symbols=16, method="rsip-ibp")


def test_a_run_goes_on_with_the_symbols_it_began_with(tmp_path):
    x, y = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    nets = [bound(model, BiasField(0, 0.1), example=x[:2] / 255, symbols=symbols) for symbols in (4, 5)]
    recipe, path = Recipe((Phase("full", 1, 1e-3),), batch_size=50), tmp_path / "checkpoint.pt"
    train(nets[0], x[:100], y[:100], recipe, checkpoint=path)
    train(nets[0], x[:100], y[:100], recipe, checkpoint=path, resume=True)
    with pytest.raises(UsageError, match=r"symbols +4 -> 5"):
        train(nets[1], x[:100], y[:100], recipe, checkpoint=path, resume=True)
