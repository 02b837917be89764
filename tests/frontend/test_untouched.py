"""Whatever a model's forward does, the caller's tensors, weights, buffers, modes and hooks are left as they were."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor, nn
from torch.nn.utils import prune

import robnet_fx
from robnet_fx import BiasField, BoundedModel, Box, Recipe
from robnet_fx.frontend.running import undisturbed
from robnet_fx.inspect import survey
from robnet_fx.interchange.network import write_onnx
from robnet_fx.machine.files import sha256_of_tensors
from robnet_fx.train.loop import train
from robnet_fx.verify import certify, classification, classify, decide, verdicts
from robnet_fx.verify.attack import attack
from tests.onnx_files import by_hand, weight

FIELD = BiasField(0, 0.05)
LABELS = torch.tensor([0, 1, 2])
ROWS = torch.eye(3).expand(3, -1, -1)


class Net(nn.Module):
    """A classifier of images [1, 4, 4] whose forward is `style(self, x)`."""

    def __init__(self, style: Callable[[Net, Tensor], Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.style = style
        self.norm, self.hidden, self.head = nn.BatchNorm2d(1), nn.Linear(16, 4), nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.seen: list[Tensor] = []
        self.cache: dict[str, Tensor] = {}
        self.last: Tensor | None = None

    def logits(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(x.flatten(1))))

    def forward(self, x: Tensor) -> Any:
        return self.style(self, x) if self.style else self.logits(x)


def normalises_in_place(net: Net, x: Tensor) -> Tensor:
    x.sub_(0.5).div_(0.25)
    return net.logits(x)


def assigns_a_slice(net: Net, x: Tensor) -> Tensor:
    x[:, :, :1] = 0.5
    return net.logits(x)


def clips_the_input(net: Net, x: Tensor) -> Tensor:
    return net.logits(F.relu_(x))


def writes_through_a_view(net: Net, x: Tensor) -> Tensor:
    x.view(x.shape[0], -1)[:, 3].zero_()
    return net.logits(x)


def counts_its_calls(net: Net, x: Tensor) -> Tensor:
    net.calls += 1
    return net.logits(x)


def binds_a_buffer_anew(net: Net, x: Tensor) -> Tensor:
    net.calls = net.calls + 1
    return net.logits(x)


def keeps_what_it_made(net: Net, x: Tensor) -> dict[str, Tensor]:
    net.last = net.cache["last"] = F.relu(net.hidden(x.flatten(1)))
    net.seen.append(net.last)
    return {"logits": net.head(net.last)}


def hooks_a_gradient(net: Net, x: Tensor) -> Tensor:
    hidden = F.relu(net.hidden(x.flatten(1)))
    handle = hidden.register_hook(lambda gradient: None)
    handle.remove()
    return net.head(hidden)


def in_double_inside(net: Net, x: Tensor) -> list[Tensor]:
    return [net.head(F.relu(net.hidden(x.flatten(1))).double().square().float())]


def plain(style: Callable[[Net, Tensor], Any] | None = None) -> Net:
    return Net(style).eval()


def in_train_mode() -> Net:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.logits(F.dropout(net.norm(x), 0.5, net.training))

    return Net(forward).train()


def watched() -> Net:
    """By hooks that a trace cannot run: they look at numbers."""
    net = plain()

    def look(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        net.seen.append(output.detach().numpy())
        output.register_hook(lambda gradient: None)

    net.hidden.register_forward_hook(look)
    net.head.register_forward_pre_hook(lambda module, inputs: net.cache.update(most=inputs[0].max().item()))
    net.head.register_full_backward_hook(lambda module, inputs, outputs: None)
    return net


def changed_by_a_hook() -> Net:
    net = plain()
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2 - 1,))
    net.hidden.register_forward_hook(lambda module, inputs, output: output.mul_(0.5))
    return net


def pruned() -> Net:
    """Its weight is an attribute that a hook sets anew at every call."""
    net = plain()
    prune.random_unstructured(net.hidden, "weight", 0.5)
    return net


def half() -> nn.Module:
    return plain(normalises_in_place).to(torch.bfloat16)


def double() -> nn.Module:
    return plain(counts_its_calls).double()


STYLES: dict[str, Callable[[], nn.Module]] = {
    **{
        style.__name__: lambda style=style: plain(style)
        for style in (
            normalises_in_place,
            assigns_a_slice,
            clips_the_input,
            writes_through_a_view,
            counts_its_calls,
            binds_a_buffer_anew,
            keeps_what_it_made,
            hooks_a_gradient,
            in_double_inside,
        )
    },
    **{make.__name__: make for make in (plain, in_train_mode, watched, changed_by_a_hook, pruned, half, double)},
    "in place by a layer": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3)),
    "DataParallel": lambda: nn.DataParallel(plain(normalises_in_place)),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(plain(assigns_a_slice)),
    "not contiguous": lambda: plain(clips_the_input),
}


def images_for(style: str) -> Tensor:
    dtype = {"half": torch.bfloat16, "double": torch.float64}.get(style, torch.float32)
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1)).to(dtype) - 0.25
    return images.transpose(2, 3) if style == "not contiguous" else images


def prints(model: nn.Module | None, *tensors: Tensor) -> str:
    """A hash of tensors, and of all that a module holds."""
    named = {str(i): tensor.float() if tensor.dtype == torch.bfloat16 else tensor for i, tensor in enumerate(tensors)}
    if model is None:
        return sha256_of_tensors(named)
    state = {name: value.float() for name, value in model.state_dict().items()}
    held = [
        (name, module.training, sorted(vars(module)), list(module._forward_hooks.values()), list(module._buffers))
        for name, module in model.named_modules()
    ]
    objects = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    nets = [module for module in model.modules() if isinstance(module, Net)]
    kept = [(len(net.seen), list(net.cache), net.last) for net in nets]
    return sha256_of_tensors(named | state) + repr((held, objects, kept))


@pytest.mark.parametrize("style", STYLES)
def test_a_model_of_any_style_is_left_as_it_was_found(style: str):
    model, images, labels = STYLES[style](), images_for(style), LABELS.clone()
    before = prints(model, images, labels)
    net = robnet_fx.bound(model, FIELD, "ibp", example=images)
    work = images.to(net.center.dtype)
    given = prints(net.model, work)
    expected = net.module_logits(work)
    if style in ("watched", "keeps_what_it_made"):  # the user's own code, hooks and all
        model.__dict__ |= {"last": None}
        model.seen.clear()
        model.cache.clear()
    if style != "in_train_mode":  # where a batch norm learns
        assert prints(net.model, work) == given
        torch.testing.assert_close(net.logits(work), expected.detach(), rtol=1e-4, atol=1e-4)
    if style != "half":
        assert (net.model is model) == (style not in ("DataParallel", "averaged"))
        certify(net, work.clamp(0, 1), labels)
    if style != "in_train_mode":
        assert prints(model, images, labels) == before


def test_hooks_that_take_part_stay_and_others_see_one_call():
    net, images, seen = plain(), torch.rand(3, 1, 4, 4), []
    net.hidden.register_forward_hook(lambda module, inputs, output: seen.append("looked on"))
    net.head.register_forward_hook(lambda module, inputs, output: output + 1)
    expected = net(images)
    seen.clear()
    with undisturbed(net) as guest:
        for _ in range(3):
            torch.testing.assert_close(guest(images), expected)
    assert seen == ["looked on"] and len(net.hidden._forward_hooks) == 1

    def behind_autograd(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        output.detach().numpy()[...] *= 2

    net.hidden.register_forward_hook(behind_autograd)
    expected = net(images)
    with undisturbed(net) as guest:
        for _ in range(3):
            torch.testing.assert_close(guest(images), expected)


def rude() -> Net:
    """Everything at once."""

    def forward(net: Net, x: Tensor) -> dict[str, Tensor]:
        x.sub_(0.5).mul_(2)
        net.calls += 1
        net.cache["last"] = x
        hidden = F.relu(net.hidden(x.flatten(1)))
        hidden.register_hook(lambda gradient: None)
        return {"scores": [net.head(hidden), -hidden], "features": hidden}

    return plain(forward)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("untouched")


@pytest.fixture(scope="module")
def net() -> BoundedModel:
    return robnet_fx.bound(rude(), FIELD, example=torch.rand(3, 1, 4, 4), output="scores.0")


def robustified(images: Tensor, labels: Tensor, folder: Path) -> None:
    """A file, for whose weights there is a place; a module's training and export have entries of their own."""
    file = folder / "net.onnx"
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "W"], ["y"])]
    by_hand(file, nodes, {"W": weight(16, 3)}, inputs=[("x", 1, ["N", 1, 4, 4])])
    data = types.SimpleNamespace(name="data", x_train=images, y_train=labels, x_test=images, y_test=labels)
    field, training = robnet_fx.BiasField(0, 0.1), robnet_fx.Training(epochs=1, pretrain=True)
    robnet_fx.robustify(file, data, field, training, out=folder / "out.onnx", runs=folder / "runs")


Call = Callable[[BoundedModel, Tensor, Tensor, Path], object]
CALLS: dict[str, Call] = {
    "trace": lambda net, x, y, out: robnet_fx.trace(net.model, x, output=net.output),
    "bound": lambda net, x, y, out: robnet_fx.bound(net.model, FIELD, example=x, output=net.output),
    "margin_bounds": lambda net, x, y, out: robnet_fx.margin_bounds(net.model, x, y, FIELD, output=net.output),
    "generate": lambda net, x, y, out: robnet_fx.generate(net.perturbed)(x, torch.eye(3).expand(3, -1, -1)),
    "robustify": lambda net, x, y, out: robustified(x, y, out),
    "forward": lambda net, x, y, out: net(net.center.expand(3, -1), x),
    "logits": lambda net, x, y, out: net.logits(x),
    "normalise": lambda net, x, y, out: net.normalise(x),
    "arranged": lambda net, x, y, out: net.arranged(x),
    "module_logits": lambda net, x, y, out: net.module_logits(x),
    "margins": lambda net, x, y, out: net.margins(x, y),
    "margins_in_parts": lambda net, x, y, out: list(net.margins_in_parts(x, y, rows=1)),
    "branch": lambda net, x, y, out: net.branch(x, y, Box(net.center[None], net.radius[None] / 2)),
    "branch_rows": lambda net, x, y, out: net.branch_rows(x, ROWS, Box(net.center[None], net.radius[None] / 2)),
    "upper_rows": lambda net, x, y, out: net.upper_rows(x, ROWS),
    "by": lambda net, x, y, out: net.by("ibp").margins(x, y),
    "decide": lambda net, x, y, out: decide(net, x, classification(y, 3, x.dtype), limits=robnet_fx.Limits(boxes=2)),
    "intermediate": lambda net, x, y, out: net.intermediate(x),
    "probe": lambda net, x, y, out: net.probe(x),
    "set_eps": lambda net, x, y, out: net.set_eps(0.04),
    "compile": lambda net, x, y, out: net.compile(backend="eager"),
    "certify": lambda net, x, y, out: certify(net, x, y),
    "classify": lambda net, x, y, out: classify(net, x, y),
    "verdicts": lambda net, x, y, out: verdicts(net, x, y),
    "attack": lambda net, x, y, out: attack(net, x, y, steps=2, restarts=2),
    "survey": lambda net, x, y, out: survey(net, x),
    "train": lambda net, x, y, out: train(net, x, y, Recipe.short(1), validation=(x, y)),
    "keep_freed_memory": lambda net, x, y, out: robnet_fx.keep_freed_memory(),
    "write_onnx": lambda net, x, y, out: write_onnx(net.model, out / "module.onnx", x, output=net.output),
}


def test_every_public_call_is_in_the_list():
    assert len(STYLES) >= 20
    functions = {name for name in robnet_fx.__all__ if isinstance(getattr(robnet_fx, name), types.FunctionType)}
    methods = {name for name, value in vars(BoundedModel).items() if callable(value) and not name.startswith("_")}
    assert functions | methods <= CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_everything_as_it_was(name: str, net: BoundedModel, folder: Path):
    images, labels = torch.rand(3, 1, 4, 4), LABELS.clone()
    before, weights = prints(None, images, labels), prints(net.model)
    CALLS[name](net, images, labels, folder)
    assert prints(None, images, labels) == before
    if name == "module_logits":  # which leaves what the user's own code leaves in attributes
        net.model.cache.clear()
    if name != "train":
        assert prints(net.model) == weights
    else:  # which is what it is for
        net.model.cache.clear()
        assert prints(net.model) != weights
