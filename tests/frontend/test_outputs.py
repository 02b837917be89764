"""The logits are found in whatever a model returns them in, and one of several tensors is asked for by name."""

from __future__ import annotations

import collections
import dataclasses
import types
from typing import Any

import pytest
import torch
from onnx import helper
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField, UsageError
from robnet_fx.frontend.outputs import OutputError, logits_in
from tests.onnx_files import by_hand, weight

Z, F, M = torch.rand(2, 3), torch.rand(2, 8, 4, 4), torch.rand(2, 3, 1, 1)
Named = collections.namedtuple("Named", ["features", "scores"])


@dataclasses.dataclass
class Output:
    loss: Tensor | None
    logits: Tensor
    hidden: list[Tensor]


@pytest.mark.parametrize(
    ("returned", "path"),
    [
        (Z, ""),
        ({"logits": Z}, "logits"),
        ([Z], "0"),
        ((Z,), "0"),
        ((Z, None), "0"),
        ((F, Z), "1"),
        ({"features": F, "out": [Z, []]}, "out.0"),
        (Named(F, Z), "scores"),
        (Output(None, Z, [F, F]), "logits"),
        (types.SimpleNamespace(features=F, logits=Z), "logits"),
        ({"loss": torch.tensor(1.0), "logits": Z, "label": Z.argmax(1)}, "logits"),
        ({"logits": Z, "same": Z}, "logits"),
    ],
)
def test_the_only_tensor_that_can_be_logits_needs_no_name(returned: Any, path: str):
    logits, found = logits_in(returned)
    assert logits is Z and found == path


@pytest.mark.parametrize(
    ("returned", "output"),
    [
        ({"a": Z, "b": 2 * Z}, "a"),
        ({"a": Z, "b": 2 * Z}, 0),
        ((2 * Z, Z), 1),
        ((2 * Z, Z), -1),
        ({"aux": [2 * Z, Z], "main": 3 * Z}, "aux.1"),
        ({"block.1": Z, "block": [2 * Z]}, "block.1"),
        (Named(2 * Z, Z), "scores"),
        (Output(None, 2 * Z, [3 * Z, Z]), "hidden.1"),
        ({7: Z, 8: 2 * Z}, 7),
    ],
)
def test_one_of_several_is_named_by_key_position_or_path(returned: Any, output: str | int):
    assert logits_in(returned, output) == (Z, str(output)) or torch.equal(logits_in(returned, output)[0], Z)


def test_a_map_of_one_pixel_is_a_vector():
    assert logits_in({"map": M})[0].shape == (2, 3)
    assert logits_in((M, F, M.flatten(1)), 2)[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("returned", "output", "said"),
    [
        ((Z, 2 * Z), None, ["2 that may be logits", "output  0 [B, 3]", "output  1 [B, 3]", "output='0'"]),
        ({"f": F}, None, ["none that can be logits", "output  f [B, 8, 4, 4]"]),
        ({"a": Z, "b": F}, "c", ["output='c' names no tensor", "output  a [B, 3]"]),
        ({"a": [Z, F]}, "a", ["output='a' names several tensors", "output  a.1 [B, 8, 4, 4]", "output='a.0'"]),
        ((Z, F), 5, ["output=5 names no tensor"]),
        ((), None, ["tuple without one"]),
        (None, None, ["NoneType without one"]),
    ],
)
def test_what_leaves_a_choice_is_asked_for_with_all_there_is(returned: Any, output: Any, said: list[str]):
    with pytest.raises(OutputError) as caught:
        logits_in(returned, output)
    assert all(words in str(caught.value) for words in said)


class Several(nn.Module):
    """`{"features", "scores": [two vectors, the second a map of one pixel]}` in eval mode, a tuple in train mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        flat = x.flatten(1)
        return {"features": x, "scores": [self.first(flat), self.second(flat)[..., None, None]]}


def test_all_that_calls_the_module_takes_the_same_output():
    model, images = Several().eval(), torch.rand(3, 1, 4, 4)
    with pytest.raises(UsageError, match=r"output  scores\.1 \[B, 3, 1, 1\]"):
        robnet_fx.trace(model, images)
    net = robnet_fx.bound(model, BiasField(0, 0.1), "ibp", example=images, output="scores.1")
    assert net.model is model and net.output == "scores.1" and net.classes == 3
    expected = model.second(images.flatten(1))
    torch.testing.assert_close(net.logits(images), expected)
    torch.testing.assert_close(net.module_logits(images), expected)
    assert set(model(images)) == {"features", "scores"}  # the module itself returns what it did


def test_a_name_may_matter_in_train_mode_only():
    class Auxiliary(Several):
        def forward(self, x: Tensor) -> Any:
            flat = x.flatten(1)
            return Named(self.second(flat), self.first(flat)) if self.training else self.first(flat)

    model, images = Auxiliary().eval(), torch.rand(2, 1, 4, 4)
    net = robnet_fx.bound(model, BiasField(0, 0.1), "ibp", example=images, output="scores")
    torch.testing.assert_close(net.module_logits(images), model(images))
    model.train()
    torch.testing.assert_close(net.module_logits(images), model.first(images.flatten(1)))


def test_a_file_takes_the_same_keyword(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["first"]),
        helper.make_node("MatMul", ["x", "V"], ["second"]),
    ]
    weights = {"W": weight(4, 3), "V": weight(4, 3, seed=1)}
    path = by_hand(tmp_path / "net.onnx", nodes, weights, outputs=[("first", 1, None), ("second", 1, None)])
    images = torch.rand(2, 4)
    for name, stored in (("first", "W"), ("second", "V")):
        net = robnet_fx.bound(path, BiasField(0, 0.1), "ibp", example=images, output=name)
        torch.testing.assert_close(net.logits(images), images @ torch.from_numpy(weights[stored]))
    with pytest.raises(UsageError, match=r"(?s)third.*first"):
        robnet_fx.trace(path, images, output="third")
