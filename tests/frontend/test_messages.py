"""An exception is reported as what it is, with the user's line; a form that differs names the first node that does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import robnet_fx
from robnet_fx import RobnetError, UnsupportedError, UsageError
from robnet_fx.frontend.canonical_graph import CanonicalGraph
from robnet_fx.passes.lower import Builder, lowerings
from robnet_fx.passes.pipeline import clean

aten = torch.ops.aten


class Net(nn.Module):
    def __init__(self, forward: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.then, self.layer = forward, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.then(self, x)


def _a_key(net: Net, x: Tensor) -> Tensor:
    return {"logits": x}["scores"]


def _an_attribute(net: Net, x: Tensor) -> Tensor:
    return x.mean_over_pixels()


def _an_assertion(net: Net, x: Tensor) -> Tensor:
    assert x.dtype == torch.uint8, "give me levels"
    return x


def _a_shape(net: Net, x: Tensor) -> Tensor:
    return net.layer(x.flatten(1)[:, :3])


def _a_rank(net: Net, x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _numbers_of_numpy(net: Net, x: Tensor) -> Tensor:
    return net.layer(torch.from_numpy(x.flatten(1).numpy()))


def _a_branch(net: Net, x: Tensor) -> Tensor:
    y = net.layer(x.flatten(1))
    return y if bool(y.sum() > 0) else -y


@pytest.mark.parametrize(
    ("forward", "kind", "head", "line"),
    [
        (_a_key, UsageError, "Net fails: KeyError: 'scores'", '["scores"]'),
        (_an_attribute, UsageError, "Net fails: AttributeError: 'Tensor' object has no", "x.mean_over_pixels()"),
        (_an_assertion, UsageError, "Net fails: AssertionError: give me levels", "assert x.dtype"),
        (_a_shape, UsageError, r"the model does not accept images of shape \[1, 4\]: RuntimeError: mat1", "[:, :3]"),
        (_a_rank, UsageError, r"the model does not accept images of shape \[1, 4\]: RuntimeError", "permute(0, 2"),
        (_numbers_of_numpy, UnsupportedError, "torch.export cannot trace Net .* RuntimeError: .*numpy", ".numpy()"),
        (_a_branch, UnsupportedError, "torch.export cannot trace Net .* GuardOnDataDependent", "bool(y.sum() > 0)"),
    ],
)
def test_an_exception_is_shown_as_it_is_with_its_line(
    forward: Callable[[Net, Tensor], Any], kind: type[RobnetError], head: str, line: str
):
    with pytest.raises(kind, match=head) as caught:
        robnet_fx.trace(Net(forward), torch.rand(2, 1, 4))
    (source,) = [text for text in str(caught.value).splitlines() if text.startswith("  source  ")]
    assert source.startswith("  source  test_messages.py:") and line in source


def test_what_has_no_form_is_refused_with_its_line():
    class Item(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) / x.norm().item()

    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).half().float()

    cases = (Item(), "a number read off", "norm().item()"), (Half(), "rounds to torch.float16", "half()")
    for model, said, line in cases:
        with pytest.raises(UnsupportedError, match=said) as caught:
            robnet_fx.trace(model, torch.rand(2, 1, 4))
        assert "\n  source  test_messages.py:" in str(caught.value) and line in str(caught.value)


def test_without_a_line_of_the_users_the_layer_is_named():
    with pytest.raises(UsageError, match=r"shape \[1, 4\]: RuntimeError: mat1 .*\n  layer   2 \(torch\.nn\.Linear\)$"):
        robnet_fx.trace(nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(5, 3)), torch.rand(2, 1, 4))


def test_what_changes_from_call_to_call_is_no_function():
    def noisy(net: Net, x: Tensor) -> Tensor:
        return net.layer(x.flatten(1) + torch.rand_like(x.flatten(1)))

    def counting(net: Net, x: Tensor) -> Tensor:
        net.layer.bias.data.add_(1)
        return net.layer(x.flatten(1))

    for forward in (noisy, counting, lambda net, x: nn.functional.dropout(net.layer(x.flatten(1)), 0.5)):
        model = Net(forward).eval()
        before = model.layer.bias.clone()
        with pytest.raises(UnsupportedError, match="not a function of its images: outputs differ by"):
            robnet_fx.trace(model, torch.rand(2, 1, 4))
        assert torch.equal(model.layer.bias, before)


class TwoSteps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(1)
        y = y - y.logsumexp(1, keepdim=True)
        return y.tanh()


def test_the_first_node_that_differs_is_named(monkeypatch: pytest.MonkeyPatch):
    make = CanonicalGraph.make

    def wrong(self: CanonicalGraph, target: Any, args: Any, kwargs: Any = None) -> fx.Node:
        return make(self, aten.sigmoid.default if target is aten.tanh.default else target, args, kwargs)

    monkeypatch.setattr(CanonicalGraph, "make", wrong)
    with pytest.raises(UnsupportedError) as caught:
        robnet_fx.trace(TwoSteps(), torch.rand(2, 1, 4))
    first, node, layer, source, reason, _ = str(caught.value).splitlines()
    assert first.startswith("the canonical graph does not reproduce the model: outputs differ by ")
    assert node.split()[:2] == ["node", "sigmoid"] and layer.endswith("TwoSteps)")
    assert "y.tanh()" in source and reason == "  reason  aten.sigmoid.default differs from the traced operation"


def test_what_is_written_out_wrongly_is_named(monkeypatch: pytest.MonkeyPatch):
    """Here a sum that overflows where the network itself does not."""

    def naive(build: Builder, node: fx.Node) -> fx.Node:
        powers = build.call(aten.exp.default, build.call(aten.mul.Tensor, node.args[0], 1e5))
        return build.call(aten.log.default, build.call(aten.sum.dim_IntList, powers, node.args[1], True))

    canonical = robnet_fx.trace(TwoSteps(), torch.rand(2, 1, 4))
    clean(canonical)
    table = {**lowerings(), aten.logsumexp.default: naive}
    monkeypatch.setattr("robnet_fx.passes.lower._TABLE", table)
    with pytest.raises(UnsupportedError) as caught:
        clean(canonical)
    first, node, _, source, reason, _ = str(caught.value).splitlines()
    assert first.startswith("the lowered graph does not reproduce the network: outputs differ by ")
    assert node.split()[:2] == ["node", "logsumexp"] and "y.logsumexp(1" in source
    assert reason == "  reason  aten.logsumexp.default is written out in operations that give other numbers"


PROGRAM = """
import sys, warnings
import torch
from torch import nn
import robnet_fx

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        self.last = x
        if sys.argv[1:]:
            warnings.warn("mine")
        return self.layer(x.flatten(1)).relu()

robnet_fx.bound(Net(), robnet_fx.BiasField(0, 0.1), example=torch.rand(2, 1, 4)).margins
if not sys.argv[1:]:
    sys.argv.append("warn")
    try:
        robnet_fx.bound(Net(), robnet_fx.BiasField(0, 0.1), example=torch.rand(2, 1, 4))
    except robnet_fx.UsageError as error:
        assert "UserWarning: mine" in str(error), error
    else:
        raise SystemExit("the model's own warning is hidden")
"""


def test_bounding_prints_nothing_and_hides_no_warning_of_the_model():
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda net, x: net.layer(x.flatten(1).half()), "float32 copy of a model in half precision"),
        (lambda net, x: net.layer(x.flatten(1)) * (x.numel() / x.shape[0]), "a number computed from the batch"),
    ],
)
def test_why_a_number_or_a_type_does_not_fit_is_said(forward: Callable[[Net, Tensor], Any], said: str):
    with pytest.raises(RobnetError, match=said):
        robnet_fx.trace(Net(forward).half(), torch.rand(2, 1, 4))
