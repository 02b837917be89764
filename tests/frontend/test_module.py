"""The front end for nn.Modules: one canonical graph whatever the spelling, over the user's own parameters."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import robnet_fx
from robnet_fx import BiasField, UnsupportedError, UnsupportedOpError, UsageError
from robnet_fx.rules import rule_for

aten = torch.ops.aten
FIELD = BiasField(1, 0.2)


class Modules(nn.Module):
    """Everything as modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.flat = nn.Flatten()
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flat(self.drop(self.pool(self.act(self.norm(self.conv(x)))))))


class InPlace(Modules):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.norm(self.conv(x)))
        x = F.dropout(self.pool(x), 0.5, self.training)
        return self.head(x.view(x.size(0), -1))


class Functional(Modules):
    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.conv.weight, self.conv.bias, padding=1)
        x = F.batch_norm(x, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
        x = F.max_pool2d(torch.relu(x), 2)
        return F.linear(torch.flatten(x, 1), self.head.weight, self.head.bias)


class Reshaping(Modules):
    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.conv(x)).relu())
        x = x.contiguous().clone().reshape(x.shape[0], 4, -1).flatten(1).unsqueeze(1).squeeze(1)
        return self.head(nn.Identity()(x))


class Guarded(Modules):
    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 4
        x = self.act(self.norm(self.conv(x)))
        x = self.drop(F.max_pool2d(x, kernel_size=(2, 2), stride=2))
        return self.head(x.view(-1, 16))


def spelled(kind: type[Modules]) -> nn.Module:
    torch.manual_seed(0)
    model = kind()
    model.norm.running_mean.normal_()
    return model


def calls(graph: fx.GraphModule) -> list[str]:
    """The operations in order, each with its literal arguments."""
    found = []
    for node in graph.graph.nodes:
        if node.op == "call_function":
            literals = [arg for arg in node.args if not isinstance(arg, fx.Node)]
            found.append(f"{node.target} {literals}")
    return found


@pytest.mark.parametrize("kind", [Modules, InPlace, Functional, Reshaping, Guarded])
def test_every_spelling_gives_one_graph(kind: type[Modules]):
    x = torch.rand(3, 1, 4, 4)
    expected = robnet_fx.bound(spelled(Modules), FIELD, "ibp", example=x)
    net = robnet_fx.bound(spelled(kind), FIELD, "ibp", example=x)
    assert [line.split(" ")[0] for line in calls(net.clean)] == [
        "aten.conv2d.default",
        "aten.batch_norm.default",
        "aten.relu.default",
        "aten.max_pool2d.default",
        "aten.reshape.default",
        "aten.linear.default",
    ]
    assert [c for c in calls(net.clean) if "pool" not in c] == [c for c in calls(expected.clean) if "pool" not in c]
    labels = torch.tensor([0, 1, 2])
    torch.testing.assert_close(net.margins(x, labels), expected.margins(x, labels))
    torch.testing.assert_close(net.logits(x), net.model.eval()(x))


def test_the_batch_is_free():
    model = spelled(InPlace)
    traced = robnet_fx.trace(model, torch.rand(2, 1, 4, 4))
    assert [node.name for node in traced.graph.find_nodes(op="placeholder")] == ["x"]
    for batch in (1, 2, 7):
        x = torch.rand(batch, 1, 4, 4)
        torch.testing.assert_close(traced(x), model.eval()(x))


def test_nodes_know_their_shape_layer_and_source():
    traced = robnet_fx.trace(spelled(Modules), torch.rand(2, 1, 4, 4))
    nodes = {node.name: node for node in traced.graph.nodes}
    assert nodes["x"].meta["shape"] == (1, 4, 4)
    assert nodes["conv2d"].meta["shape"] == (4, 4, 4)
    assert nodes["conv2d"].meta["layer"] == ("conv", "torch.nn.Conv2d")
    assert nodes["relu"].meta["layer"] == ("act", "torch.nn.ReLU")
    assert nodes["linear"].meta["shape"] == (3,)
    assert nodes["linear"].meta["dtype"] == torch.float32
    assert nodes["conv2d"].meta["source"].startswith("test_module.py:")
    assert "self.head(self.flat(" in nodes["conv2d"].meta["source"]


def test_the_mode_is_put_back():
    model = spelled(Modules).train()
    model.norm.eval()
    before = {name: module.training for name, module in model.named_modules()}
    statistics = model.norm.running_mean.clone()
    robnet_fx.trace(model, torch.rand(4, 1, 4, 4))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.equal(model.norm.running_mean, statistics)


def test_the_mode_is_put_back_after_a_failure():
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    model = Fails().train()
    with pytest.raises(UsageError, match="no"):
        robnet_fx.trace(model, torch.rand(2, 1, 4, 4))
    assert model.training


def test_the_users_fx_graph_module_is_a_module_like_any_other():
    model = spelled(InPlace).eval()
    graph = fx.symbolic_trace(model)
    x = torch.rand(3, 1, 4, 4)
    traced = robnet_fx.trace(graph, x)
    assert traced.model is graph
    torch.testing.assert_close(traced(x), model(x))
    again = robnet_fx.trace(traced, x)
    torch.testing.assert_close(again(x), model(x))
    assert [node.target for node in again.graph.find_nodes(op="call_function", target=aten.conv2d.default)]


def test_an_example_of_one_is_enough():
    model = spelled(InPlace)
    x = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(robnet_fx.trace(model, x[:1])(x), model.eval()(x))


def test_parameters_used_twice_are_one():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x.flatten(1)))
            return self.head(torch.relu(self.second(x)) + self.first(x))

    model = Tied()
    x = torch.rand(3, 1, 4)
    net = robnet_fx.bound(model, FIELD, example=x)
    margins = net.margins(x, torch.tensor([0, 1, 2]))
    margins[margins > -torch.inf].sum().backward()
    assert len(list(model.parameters())) == len(list(net.parameters()))
    assert bool((model.first.weight.grad != 0).any())


def test_constants_of_the_code_are_kept():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(2 - x.flatten(1) * torch.tensor([1.0, -2.0, 0.5, 0.0]))

    model = Scaled()
    x = torch.rand(3, 1, 4)
    net = robnet_fx.bound(model, FIELD, "rsip-ssip", example=x)
    torch.testing.assert_close(net.logits(x), model(x))
    net.double()
    torch.testing.assert_close(net.logits(x.double()), model(x.double()))


@pytest.mark.parametrize(
    ("forward", "ops"),
    [
        (lambda x: torch.cat(x.split(2, 1)[::-1], 1), {"slice": 2, "cat": 1}),
        (lambda x: torch.cat(torch.split(x, [1, 3], 1), 1), {"slice": 2, "cat": 1}),
        (lambda x: torch.cat(x.chunk(4, 1)[2:], 1), {"slice": 2, "cat": 1}),
        (lambda x: sum(x.unbind(1)), {"select": 4, "add": 3}),
        (lambda x: x[:, 1] - x[:, -1], {"select": 2, "sub": 1}),
        (lambda x: x[:, ::2], {"slice": 1}),
        (lambda x: x[:, :], {}),
        (lambda x: x.permute(0, 2, 1), {"permute": 1}),
        (lambda x: x.transpose(1, 2), {"transpose": 1}),
        (lambda x: x.movedim(1, 2), {"permute": 1}),
        (lambda x: x.unsqueeze(1).squeeze(1), {}),
        (lambda x: F.relu6(x), {"relu6": 1}),
        (lambda x: F.hardtanh(x, -0.5, 0.5), {"hardtanh": 1}),
        (lambda x: x.clamp(min=0.2), {"clamp": 1}),
        (lambda x: x.clamp(max=0.2), {"clamp": 1}),
        (lambda x: F.leaky_relu(x, 0.2), {"leaky_relu": 1}),
        (lambda x: F.avg_pool1d(x, 2), {"avg_pool1d": 1}),
        (lambda x: F.adaptive_avg_pool1d(x, 1), {"adaptive_avg_pool1d": 1}),
        (lambda x: F.max_pool1d(x, 2), {"max_pool1d": 1}),
        (lambda x: x.mean(2), {"mean": 1}),
        (lambda x: x.sum((1, 2), keepdim=True), {"sum": 1}),
        (lambda x: F.pad(x, (1, 1)), {"pad": 1}),
        (lambda x: F.pad(x, (1, 1), value=0.5), {"pad": 1}),
        (lambda x: F.pad(x, (1, 1), mode="reflect"), {"pad": 1}),
        (lambda x: F.pad(x, (1, 1), mode="replicate"), {"pad": 1}),
        (lambda x: 1 - x, {"rsub": 1}),
        (lambda x: -(3 * x) / 4, {"neg": 1, "mul": 1, "div": 1}),
        (lambda x: x @ torch.ones(3, 2), {"matmul": 1}),
        (lambda x: torch.ones(2, 4) @ x, {"matmul": 1}),
        (lambda x: torch.sigmoid(x) - torch.tanh(x), {"sigmoid": 1, "tanh": 1, "sub": 1}),
    ],
)
def test_spellings_of_one_operation(forward: Callable[[Tensor], Tensor], ops: dict[str, int]):
    """Each comes out as operations that have rules; where torch versions differ in the name, the family is enough."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.head = nn.Linear(forward(torch.rand(2, 4, 3))[0].numel(), 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(forward(x - 0.5).flatten(1))

    model, x = Net(), torch.rand(3, 4, 3)
    net = robnet_fx.bound(model, FIELD, "rsip-ssip", clip="clamp", example=x, layout="nchw")
    torch.testing.assert_close(net.clean(x), model(x))
    rules = [rule_for(node.target) for node in net.clean.graph.nodes if node.op == "call_function"]
    seen = Counter(rule.name for rule in rules if rule)
    for name, count in ops.items():
        assert sum(seen[other] for other in seen if name in other) >= count, f"{name} missing from {dict(seen)}"
    lower, upper = net.bounds(x, torch.eye(3).expand(3, -1, -1))
    logits = model(x)
    assert bool((lower <= logits + 1e-5).all() and (logits <= upper + 1e-5).all())


def test_unsupported_operations_are_listed_all_at_once_with_layer_and_source():
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.lgamma(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 2, 3), Block(), nn.Conv2d(2, 2, 1), Block())
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).flatten(1).erfinv())

    with pytest.raises(UnsupportedOpError) as caught:
        robnet_fx.bound(Net(), FIELD, example=torch.rand(2, 1, 4, 4))
    lines = str(caught.value).splitlines()
    assert lines[0] == "no bound rule for aten.erfinv.default, aten.lgamma.default (3 nodes)"
    assert "  node    lgamma       f32[B, 2, 2, 2]" in lines
    assert "  node    lgamma_1     f32[B, 2, 2, 2]" in lines
    assert any(line.startswith("  layer   body.1 (") and line.endswith("Block)") for line in lines)
    assert any(line.startswith("  layer   body.3 (") and line.endswith("Block)") for line in lines)
    assert any(
        line.startswith("  source  test_module.py:") and line.endswith("return torch.lgamma(x)") for line in lines
    )
    assert any(".erfinv())" in line for line in lines)
    assert lines[-1] == "  remedy  replace the layer, or add a rule: docs/adding-an-op.md"


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_refused_by_name(layer: type[nn.RNNBase]):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.head = layer(4, 3, batch_first=True), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rows(x.squeeze(1))[0][:, -1])

    with pytest.raises(UnsupportedError, match=r"no bound rule for aten\.\w+\.input(.|\n)*layer   rows(.|\n)*remedy"):
        robnet_fx.bound(Net(), FIELD, example=torch.rand(2, 1, 4, 4))


def _returns(value: Callable[[Tensor], object]) -> nn.Module:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> object:
            return value(x)

    return Net()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (lambda x: (x.flatten(1), 2 * x.flatten(1)), UsageError, "one tensor of logits, .* 2 that may be"),
        (lambda x: x, UnsupportedError, "logits"),
        (lambda x: x.flatten(), UnsupportedError, "logits|batch"),
        (lambda x: x.reshape(-1, 2), UnsupportedError, "logits|batch"),
        (lambda x: x.flatten(1).T, UnsupportedError, "logits|batch|not fixed"),
        (lambda x: x.flatten(1) if x.sum() > 0 else -x.flatten(1), UnsupportedError, "cannot trace"),
        (lambda x: x.flatten(1) / x.shape[0], UnsupportedError, "does not reproduce"),
        (lambda x: torch.ones(2, 3) * x.new_ones(x.shape[0], 3), UnsupportedError, "batch|reproduce|not run"),
        (lambda x: x.flatten(1) @ torch.ones(3, 3), UsageError, "does not accept images of shape"),
        (lambda x: x.flatten(1) * float("nan"), UsageError, "not finite"),
    ],
)
def test_what_is_not_a_classifier_is_refused(value, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        robnet_fx.trace(_returns(value), torch.rand(2, 1, 4))


class Linear(nn.Module):
    """A linear layer, and then whatever is wrong with the batch."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.then = nn.Linear(4, 4), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.layer(x.flatten(1)))


def _by_length(x: Tensor) -> Tensor:
    count = len(x)
    return x.reshape(count, -1)


def _by_loop(x: Tensor) -> Tensor:
    return torch.stack([row * 2 for row in x])


def _by_integer(x: Tensor) -> Tensor:
    return x.view(int(x.size(0)), -1)


@pytest.mark.parametrize("forward", [_by_length, _by_loop, _by_integer])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_size_is_named_with_its_line(forward: Callable[[Tensor], Tensor], batch: int, capfd):
    with pytest.raises(UnsupportedError) as caught:
        robnet_fx.trace(Linear(forward), torch.rand(batch, 1, 4))
    first, source, remedy = str(caught.value).splitlines()
    assert first == "Linear fixes the batch size to that of the example, and bounds need it free"
    line = {_by_length: "count = len(x)", _by_loop: "for row in x", _by_integer: "int(x.size(0))"}[forward]
    assert source.startswith("  source  test_module.py:") and line in source
    assert "x.shape[0] instead of len(x)" in remedy
    assert "set_replacement" not in capfd.readouterr().err


def test_listening_for_the_line_leaves_the_log_as_it_was():
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = log.level, list(log.filters)
    with pytest.raises(UnsupportedError, match="fixes the batch size"):
        robnet_fx.trace(Linear(_by_length), torch.rand(2, 1, 4))
    assert (log.level, log.filters) == before


@pytest.mark.parametrize(
    ("forward", "operation"),
    [
        (lambda x: x - x.mean(0), "aten.mean.dim"),
        (lambda x: x / x.max(), "aten.max.default"),
        (lambda x: F.softmax(x, 0), "aten.softmax.int"),
        (lambda x: x + x[:1], "aten.slice.Tensor"),
        (lambda x: x.cumsum(0), "aten.cumsum.default"),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_what_mixes_samples_is_named_with_its_line(forward, operation: str, batch: int):
    with pytest.raises(UnsupportedError) as caught:
        robnet_fx.trace(Linear(forward), torch.rand(batch, 1, 4))
    first, *place, reason, remedy = str(caught.value).splitlines()
    assert first.startswith("a batch of one does not reproduce the model, for it mixes samples: outputs differ by ")
    assert any(line.startswith("  source  test_module.py:") for line in place)
    assert reason == f"  reason  {operation} of a batch is not that of its samples"
    assert remedy == "  remedy  let the logits of an image depend on this image alone"


def test_what_the_trace_refuses_comes_with_its_line():
    with pytest.raises(UnsupportedError) as caught:
        robnet_fx.trace(Linear(lambda x: x.sort(1)[0]), torch.rand(2, 1, 4))
    first, layer, source = str(caught.value).splitlines()
    assert first.startswith("result 0 of aten.sort.default")
    assert layer.endswith("Linear)") and source.startswith("  source  test_module.py:")


def test_weights_that_are_not_finite_are_named():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    with pytest.raises(UsageError, match=r"NaN or inf in 1\.weight"):
        robnet_fx.trace(model, torch.rand(2, 1, 4))


@pytest.mark.parametrize("example", [None, torch.rand(4), [[1.0]]])
def test_an_example_that_is_no_batch_is_refused(example):
    with pytest.raises(UsageError, match="example"):
        robnet_fx.trace(nn.Flatten(), example)


def test_a_network_without_the_image_in_its_logits_is_refused():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.rand(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return 0 * x.flatten(1)[:, :3] + self.logits

    x = torch.rand(2, 1, 4)
    net = robnet_fx.bound(Constant(), FIELD, example=x)
    lower, upper = net.bounds(x, torch.eye(3).expand(2, -1, -1))
    torch.testing.assert_close(lower, upper)
