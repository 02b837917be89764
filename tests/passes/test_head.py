"""What a network's output is to its logits: a softmax or sigmoid goes, and one number is the margin of two classes."""

from __future__ import annotations

import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.errors import UnsupportedError
from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.passes.head import Head, head_of
from robnet_fx.passes.pipeline import clean
from robnet_fx.train.gradients import accumulate
from robnet_fx.verify import certify
from tests.onnx_files import by_hand, weight

HEADS = {  # name: (the end, numbers in front of it, its function)
    "z": (lambda z: z, 1, None),
    "z of no axes": (lambda z: z[:, 0], 1, None),
    "z over pixels": (lambda z: z[:, :, None, None], 1, None),
    "sigmoid": (torch.sigmoid, 1, "sigmoid"),
    "sigmoid of no axes": (lambda z: torch.sigmoid(z).squeeze(1), 1, "sigmoid"),
    "hardsigmoid": (F.hardsigmoid, 1, "hardsigmoid"),
    "logsigmoid": (F.logsigmoid, 1, "log_sigmoid"),
    "one of a softmax": (lambda z: F.softmax(z, 1)[:, 1], 2, "probability"),
    "1 - mean of two": (lambda z: 1 - (torch.sigmoid(z[:, :1]) + torch.sigmoid(z[:, 1:])) / 2, 2, "probability"),
    "by hand": (lambda z: (1 / (1 + torch.exp(-z)) + (torch.tanh(z) + 1) * 0.5) / 2, 1, "probability"),
    "pooled": (lambda z: F.adaptive_avg_pool1d(F.max_pool1d(z.sigmoid()[:, None], 2), 1), 4, "probability"),
    "sum of two": (lambda z: torch.stack([z.sigmoid(), 1 - torch.exp(-F.softplus(z))]).sum(0) / 2, 1, "probability"),
    "weighed": (lambda z: F.relu6(z) @ torch.full((2, 1), 1 / 12), 2, "probability"),
    "powers": (lambda z: torch.exp(-(z[:, :1] ** 2)) * torch.sigmoid(z[:, 1:]).sqrt(), 2, "probability"),
    "sigmoids of classes": (torch.sigmoid, 3, "sigmoid"),
    "softmax over pixels": (lambda z: F.softmax(z[:, :, None, None], 1), 3, "softmax"),
}
NEITHER = {
    "softplus": F.softplus,
    "a softmax of one": lambda z: F.softmax(z, 1),
    "a distance": lambda z: (z - 1).norm(dim=1),
    "a square": lambda z: z * z,
    "a probability in parts": lambda z: (F.softmax(z.expand(-1, 3), 1) * torch.sigmoid(z)).sum(1),
    "log of a sigmoid": lambda z: torch.log(torch.sigmoid(z)),
}


class Ends(nn.Module):
    """Two layers and an end."""

    def __init__(self, end, numbers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.end, self.body = end, nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, numbers))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(3 * self.body(x))


def images() -> Tensor:
    return torch.rand(12, 1, 3, 3, generator=torch.Generator().manual_seed(1))


def decisions(output: Tensor, function: str | None) -> Tensor:
    """The class that a user reads off the output."""
    values = output.flatten(1) if output.dim() > 1 else output.unsqueeze(1)
    if values.shape[1] > 1:
        return values.argmax(1)
    threshold = {None: 0.0, "log_sigmoid": -0.6931472}.get(function, 0.5)
    return (values[:, 0] > threshold).long()


@pytest.mark.parametrize("name", HEADS)
def test_verdicts_are_about_the_decisions_of_the_model(name):
    """Unperturbed and under fields of the box, and the training loss sees logits of the same decisions."""
    end, numbers, function = HEADS[name]
    model, x = Ends(end, numbers).eval(), images()
    net = robnet_fx.bound(model, BiasField(1, 0.05), example=x[:2], method="rsip-ibp")
    assert net.head.function == function and net.classes == max(2, numbers if not net.head.single else 2)
    assert ("output" in net.remarks) == (function is not None or net.head.single)
    with torch.no_grad():
        meant = decisions(model(x), function)
        assert torch.equal(net.logits(x).argmax(1), meant)
        assert torch.equal(net.module_logits(x).argmax(1), meant)
        certified = (net.margins(x, meant) < 0).all(1)
        assert certified.any()
        parts = [getattr(net.transform, part) for part in net.transform.part_names]
        for _ in range(5):
            t = net.center + net.radius * (torch.rand(len(x), len(net.center)) * 2 - 1)
            perturbed = net.transform.rules.apply(t, x, *parts).clamp(0, 1)
            assert torch.equal(decisions(model(perturbed), function)[certified], meant[certified])


@pytest.mark.parametrize("name", NEITHER)
def test_one_number_of_one_sign_is_no_logit(name):
    with pytest.raises(UnsupportedError, match="always has the same sign"):
        clean(robnet_fx.trace(Ends(NEITHER[name], 1).eval(), images()))


@pytest.mark.parametrize("name", ["z", "sigmoid", "one of a softmax", "sigmoids of classes", "logsigmoid"])
def test_logits_are_those_whose_function_the_output_is(name):
    end, numbers, function = HEADS[name]
    z = torch.linspace(-12, 12, 9)[:, None].expand(-1, numbers) * torch.arange(1, numbers + 1)
    given = Head(function, numbers < 3).logits(end(z))
    if function == "probability":
        torch.testing.assert_close(F.softmax(given, 1)[:, 1], end(z), rtol=1e-4, atol=1e-6)
    else:
        expected = F.pad(z, [1, 0]) if numbers == 1 else z
        torch.testing.assert_close(given.clamp(-15, 15), expected.clamp(-15, 15), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("saturated", [200.0, -200.0])
@pytest.mark.parametrize("name", ["sigmoid", "logsigmoid", "hardsigmoid"])
def test_saturated_outputs_have_finite_logits(name, saturated):
    end, _, function = HEADS[name]
    z = torch.full((2, 1), saturated, requires_grad=True)
    logits = Head(function, True).logits(end(z))
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert bool(logits.isfinite().all()) and bool(z.grad.isfinite().all())
    assert torch.equal(logits.argmax(1), (z[:, 0] > 0).long())


@pytest.mark.parametrize("name", ["z of no axes", "1 - mean of two"])
def test_one_number_is_trained_and_certified(name):
    end, numbers, _ = HEADS[name]
    x, model = images(), Ends(end, numbers)
    labels = (x.mean((1, 2, 3)) > x.mean()).long()
    net = robnet_fx.bound(model, BiasField(0, 0.02), example=x[:2])
    optimiser = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(40):
        optimiser.zero_grad()
        figures = accumulate(net, x, labels, alpha=1.0)
        optimiser.step()
    certificate = certify(net, x, labels, limits=robnet_fx.Limits(boxes=8))
    assert float(figures.losses["standard"]) < 0.3 and certificate.certified_accuracy > 0.7
    assert certificate.document()["remarks"] == net.remarks


ONNX_HEADS = {
    "one": ([("Sigmoid", {})], "sigmoid"),
    "no axes": ([("Sigmoid", {}), ("Squeeze", {})], "sigmoid"),
    "logit": ([("Neg", {})], None),
    "hard": ([("HardSigmoid", {"alpha": 1 / 6})], "probability"),
    "classes": ([("Sigmoid", {})], "sigmoid"),
}


@pytest.mark.parametrize("name", ONNX_HEADS)
def test_the_same_from_a_file(tmp_path, name):
    steps, function = ONNX_HEADS[name]
    numbers = 3 if name == "classes" else 1
    nodes, last = [helper.make_node("MatMul", ["x", "W"], ["h0"])], "h0"
    for place, (op, attributes) in enumerate(steps, 1):
        more = ["axes"] if op == "Squeeze" else []
        nodes.append(helper.make_node(op, [last, *more], [f"h{place}"], **attributes))
        last = f"h{place}"
    nodes[-1].output[0] = "y"
    weights = {"W": weight(9, numbers) * 3, **({"axes": torch.tensor([1]).numpy()} if name == "no axes" else {})}
    model = load_onnx(by_hand(tmp_path / "net.onnx", nodes, weights, inputs=[("x", 1, ["N", 9])]))
    graph = robnet_fx.trace(model, images())
    assert model.classes == max(2, numbers) and head_of(graph).function == function
    output = model(images().flatten(1))
    assert torch.equal(clean(graph)(images()).argmax(1), decisions(output, function))
