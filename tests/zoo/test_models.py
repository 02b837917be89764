"""The zoo's networks have the layers the paper counts, and the zoo stays clear of the compiler."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from robnet_fx.errors import UsageError
from robnet_fx.zoo.models import REGISTRY, architecture

COUNTS = {  # ReLU units, parameters
    "digits": (832, 18_346),
    "dm-small": (6_244, 214_918),
    "dm-medium": (62_464, 2_466_858),
    "dm-large": (229_888, 17_190_602),
    "mri": (311_808, 17_197_492),
}


@pytest.mark.parametrize("name", REGISTRY)
def test_relu_and_parameter_counts(name: str) -> None:
    entry = architecture(name)
    net = entry.build()
    units = 0

    def count(_module: nn.Module, _args: object, output: torch.Tensor) -> None:
        nonlocal units
        units += output[0].numel()

    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(count)
    with torch.no_grad():
        logits = net(torch.zeros(1, *entry.input_shape))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert logits.shape == (1, entry.classes)
    assert (units, parameters) == COUNTS[name]


def test_an_unknown_network_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown network 'resnet'; known: digits, dm-small"):
        architecture("resnet")


def test_the_zoo_imports_no_bound_code() -> None:
    import robnet_fx.zoo

    allowed = {"errors", "images", "interchange", "machine", "zoo"}
    files = sorted(Path(robnet_fx.zoo.__path__[0]).rglob("*.py"))
    assert len(files) >= 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: the zoo imports by full name, so that this test sees what"
                assert node.module is not None
                modules = [node.module]
                if node.module == "robnet_fx":
                    modules = [f"robnet_fx.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            for module in modules:
                top, *rest = module.split(".")
                assert top != "robnet_fx" or (rest and rest[0] in allowed), f"{file} imports {module}"
