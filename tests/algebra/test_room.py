"""What `symbols="all"` does where memory does not hold all: parts of a batch, the largest errors, a warning."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from robnet_fx import BiasField, UsageError, bound
from robnet_fx.algebra import kernels, room, symbols
from robnet_fx.perturbations.base import Box
from tests.bounds.test_memory import peak


def deep() -> nn.Sequential:
    """So many layers that errors can cancel."""
    layers = [layer for width in (3, 4, 4, 4) for layer in (nn.Conv2d(width, 4, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 5))


def branched() -> nn.Module:
    """Values that wait for others while symbols are born."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Shortcut(), Shortcut(), nn.Flatten(), nn.Linear(256, 5)
    )


class Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return bound(deep(), BiasField(3, 0.3), example=torch.rand(2, 3, 8, 8), symbols="all").double()


@pytest.fixture
def images():
    return torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def memory(monkeypatch):
    """Sets how many bytes are available."""
    return lambda size: monkeypatch.setattr(room, "available_memory", lambda device: size)


def columns(net, images, labels):
    """How many columns the samples of each run of the graph ended up with, run by run."""
    last = [node for node in net._upper.graph.nodes if node.target is symbols.born][-1]
    seen = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, node):
            value = super().run_node(node)
            if node is last:
                seen.append(value.used.tolist())
            return value

    graph = net._upper
    graph.forward = lambda *args: Watch(graph).run(*args, *[None] * (4 - len(args)))
    with torch.no_grad():
        upper = net.margins(images, labels)
    del graph.forward
    return upper, seen


def test_a_batch_that_does_not_fit_is_worked_in_parts_with_the_same_result(net, images, memory):
    labels = net.logits(images).argmax(1)
    whole, seen = columns(net, images, labels)
    assert len(seen) == 1
    alone = [columns(net, image[None], label[None]) for image, label in zip(images, labels, strict=True)]
    assert [used for _, [[used]] in alone] == seen[0]
    fixed, each = next(iter(room_of(net)))
    memory(int(8 / room.USABLE * 2.5 * (fixed + each * max(seen[0]))))  # for two samples, not for four
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parted, seen = columns(net, images, labels)
    assert [len(part) for part in seen] == [2, 2]
    torch.testing.assert_close(parted, whole, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        forms = net.branch(images, labels, Box(net.center[None], net.radius[None]))
        table = net.intermediate(images)
    assert forms.upper.shape == (4, net.classes - 1)
    assert all(end.shape[0] == 4 for pre in (forms.pre, table) for interval in pre.values() for end in interval)


def room_of(net):
    """`fixed` and `each` of the births in a graph, in order."""
    return [node.args[3:5] for node in net._upper.graph.nodes if node.target is room.columns]


def test_what_has_no_room_is_slack_and_said_once(net, images, memory):
    image, label = images[:1], net.logits(images[:1]).argmax(1)
    full, [[most]] = columns(net, image, label)
    plain = bound(net.model, BiasField(3, 0.3), example=images, symbols=0).double()
    fixed, each = room_of(net)[0]
    budget = (len(net.center) + most) // 2
    memory(int(8 / room.USABLE * (fixed + each * budget)) + 8)
    with pytest.warns(UserWarning, match=r"memory held \d+ of the \d+ errors of an image.* from relu") as said:
        (kept, [[used]]), (again, _) = [columns(net, image, label) for _ in range(2)]
    assert len(said) == 1 and torch.equal(kept, again)
    assert budget <= used < most
    rise = [float(upper[upper > -torch.inf].sum()) for upper in (full, kept, plain.margins(image, label).detach())]
    assert rise[0] < rise[1] < rise[2]
    fields = net.center + net.radius * (2 * torch.rand(256, len(net.center), dtype=torch.float64) - 1).sign()
    logits = net(fields, image.expand(256, -1, -1, -1))
    assert bool((logits - logits[:, label] <= kept + 1e-9).masked_fill(kept == -torch.inf, True).all())


def test_a_graph_that_is_run_directly_keeps_what_fits(net, images, memory):
    fixed, each = next(node.args[3:5] for node in net.bounds.graph.nodes if node.target is room.columns)
    memory(int(8 / room.USABLE * 4 * (fixed + each * (len(net.center) + 5))))
    spec = torch.eye(net.classes, dtype=torch.float64).expand(4, -1, -1)
    with pytest.warns(UserWarning, match="errors of a layer"):
        lower, upper = net.bounds(images, spec)
    logits = net.logits(images)
    assert bool(((lower <= logits) & (logits <= upper)).all())


@pytest.mark.parametrize("make", [deep, branched])
def test_memory_is_not_exceeded(make, images, memory):
    net = bound(make(), BiasField(3, 0.3), example=images, symbols="all").double()
    labels = net.logits(images).argmax(1)
    size = 8 * 2**20
    memory(size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert peak(lambda: net.margins(images, labels)) < size


def test_nothing_is_traced_that_memory_settles(net, images):
    with kernels.plain(), pytest.raises(UsageError, match="give a number"):
        net.margins(images, net.logits(images).argmax(1))


def test_room_is_shared_by_samples_and_counted_in_their_type():
    value = symbols.Symbolic(torch.zeros(2, 3, 5), torch.zeros(2, 5), torch.rand(2, 5))
    assert room.room(value) == pytest.approx(
        2 * room.room(symbols.Symbolic(*(part.double() for part in value))), rel=0.2
    )
