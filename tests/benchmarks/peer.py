"""The closest peer, auto_LiRPA, as a contender of `speed.py`: the same weights, images, labels, box and margins."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robnet_fx.bounds.evaluate import margin_spec, other_classes
from robnet_fx.train import robust_loss

if TYPE_CHECKING:
    from tests.benchmarks.speed import Bench


class _Perturbed(nn.Module):
    """The field as a product of `t [B, D]` with weights `[B, D, C * H * W]` of each sample, then the paper's clip."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.shape = network, shape

    def forward(self, t: Tensor, weights: Tensor, middle: Tensor) -> Any:
        image = torch.matmul(t.unsqueeze(1), weights).squeeze(1).reshape(-1, *self.shape) + middle
        return self.network(-(torch.relu(-torch.relu(image) + 1) - 1))


def contender(bench: Bench, name: str, mix: tuple[Tensor, Tensor] | None) -> Callable[[], Any]:
    """Its bounds, or its training step; with a `mix` on the samples that are correct in it."""
    warnings.filterwarnings("ignore", category=UserWarning)
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    net, images, labels = bench.nets["rsip-ssip"], bench.images, bench.labels
    if mix is not None:
        right = mix[0] == labels
        images, labels = images[right], labels[right]
    field = net.transform
    tail = [1] * (images.dim() - 1)
    weights = (images.unsqueeze(1) * (field.radius.reshape(-1, *tail) * field.multiplicative)).flatten(2)
    middle = images * (field.center.reshape(-1, *tail) * field.multiplicative).sum(0)
    t = torch.zeros(len(images), len(field.radius), device=images.device)
    option = {"activation_bound_option": "same-slope", "relu": "same-slope"}
    module = BoundedModule(
        _Perturbed(bench.network, images.shape[1:]), (t, weights, middle), bound_opts=option, device=images.device
    )
    box = BoundedTensor(t, PerturbationLpNorm(norm=torch.inf, x_L=t - 1, x_U=t + 1))
    spec = margin_spec(labels, other_classes(labels, net.classes), net.classes).to(images.dtype)

    def bounds() -> Tensor:
        given = {"x": (box, weights, middle), "C": spec, "method": "forward+backward"}
        upper: Tensor = module.compute_bounds(**given, bound_lower=False, bound_upper=True)[1]
        return upper

    def step() -> Tensor:
        bench.optimiser.zero_grad()
        bench.network.train()
        standard = cross_entropy(bench.network(bench.images), bench.labels)
        upper = bounds()
        (standard + robust_loss(upper, batch=len(bench.images))).backward()
        bench.optimiser.step()
        return upper

    return torch.no_grad()(bounds) if name.endswith("bounds") else step
