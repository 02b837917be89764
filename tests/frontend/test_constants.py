"""What a network makes of nothing but its own code is a constant, and follows the graph to another dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.algebra.ops import cast
from robnet_fx.verify import certify
from robnet_fx.verify.convert import in_dtype
from tests.onnx_files import by_hand, weight

aten = torch.ops.aten
FIELD = BiasField(0, 0.01)


class Net(nn.Module):
    """A classifier of images [1, 4, 4] whose forward is `make(self, x)`, summed over rows."""

    def __init__(self, make: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.make, self.conv, self.head = make, nn.Conv2d(1, 2, 1), nn.Linear(8, 3)
        self.register_buffer("mask", torch.tensor([True, False, True, True]))
        self.register_buffer("exact", torch.rand(4, 4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.make(self, F.relu(self.conv(x))).sum(2).flatten(1))


def _cosines(net: Net, x: Tensor) -> Tensor:
    n = torch.arange(x.shape[-1], dtype=torch.float32)
    return x @ torch.cos(torch.pi / len(n) * torch.outer(n + 0.5, n))


def _coordinates(net: Net, x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    i = torch.linspace(0, 1, h).view(1, 1, h, 1).repeat(b, 1, 1, w).type_as(x)
    return x + i + torch.zeros(4).new_tensor([1.0, 2, 3, 4]).to(x).expand_as(x) @ torch.eye(4).view_as(torch.ones(4, 4))


def _of_parameters(net: Net, x: Tensor) -> Tensor:
    scale = torch.outer(net.head.bias.repeat(2)[:4], torch.linspace(0, 1, 4, dtype=torch.float64).float())
    return x @ scale + torch.full_like(net.conv.bias, 0.1)[:, None, None] * net.conv.weight.new_ones(1, 4)


def _casts(net: Net, x: Tensor) -> Tensor:
    tril = torch.ones(4, 4, dtype=torch.bool).tril()
    x = x.masked_fill(~tril, 0.0) @ torch.diag(net.mask.to(torch.float32)) @ tril.float()
    return F.softmax(x, -1, dtype=torch.float32).to(x.dtype) + x.double().square().mean(3, keepdim=True).float()


def _in_double(net: Net, x: Tensor) -> Tensor:
    return (x.double() @ net.exact * torch.arange(4.0, dtype=torch.float64)).to(x.dtype)


def _written_into(net: Net, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    out[:, :, ::2] = 0.5 * x[:, :, 1::2]
    out[:, :, 1::2] = torch.arange(4.0)
    return out


MADE = [_cosines, _coordinates, _of_parameters, _casts, _in_double, _written_into]


def test_verdicts_in_float64_run_to_the_end():
    model, images = Net(lambda net, x: sum(make(net, x) for make in MADE)).eval(), torch.rand(2, 1, 4, 4)
    net = robnet_fx.bound(model, FIELD, "ibp", example=images)
    labels = model(images).argmax(1)
    assert bool(certify(net, images, labels).correct.all())
    exact = in_dtype(net, torch.float64)
    margins = exact.margins(images.double(), labels)
    torch.testing.assert_close(margins.float(), net.margins(images, labels), rtol=1e-4, atol=1e-4)
    kinds = {value.dtype for value in exact.clean.get_submodule("constants").buffers()}
    assert kinds == {torch.float64, torch.int64, torch.bool}
    casts = exact.clean.graph.find_nodes(op="call_function", target=cast)
    assert casts and all("exact" in str(node.args[0]) or "mask" in str(node.args[0]) for node in casts)


def test_constants_of_a_file_follow_too(tmp_path):
    """ConstantOfShape of a Shape, and Range."""
    nodes = [
        helper.make_node("Shape", ["W"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("v", 1, [1], [0.5])),
        helper.make_node("Range", ["zero", "three", "one"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["range"], to=1),
        helper.make_node("MatMul", ["x", "W"], ["product"]),
        helper.make_node("MatMul", ["x", "ones"], ["sum"]),
        helper.make_node("Mul", ["product", "range"], ["scaled"]),
        helper.make_node("Add", ["scaled", "sum"], ["y"]),
    ]
    numbers = {name: torch.tensor(n).numpy() for name, n in (("zero", 0), ("one", 1), ("three", 3))}
    path = by_hand(tmp_path / "net.onnx", nodes, {"W": weight(4, 3), **numbers})
    images = torch.rand(2, 4)
    net = robnet_fx.bound(path, FIELD, example=images)
    expected = images @ torch.from_numpy(weight(4, 3)) * torch.arange(3) + 0.5 * images.sum(1, keepdim=True)
    torch.testing.assert_close(net.logits(images), expected)
    assert bool(certify(net, images, expected.argmax(1)).correct.all())


def test_what_is_asked_for_its_dtype_or_shape_alone_is_no_input():
    def make(net: Net, x: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, 4).type_as(x).expand_as(x[0, 0])
        return x * (ramp + torch.ones_like(x) * x.new_full((4,), 2.0) + torch.eye(4).reshape(16).view_as(ramp).to(x))

    traced = robnet_fx.trace(Net(make), torch.rand(2, 1, 4, 4))
    (relu,) = traced.graph.find_nodes(op="call_function", target=aten.relu.default)
    assert [node.target for node in relu.users] == [aten.mul.Tensor]
