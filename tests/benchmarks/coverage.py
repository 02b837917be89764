"""Which torchvision classifiers robnet-fx takes, and how tight their bounds are: the table of docs/coverage.md.

    python -m tests.benchmarks.coverage --out docs/coverage.md [resnet18 vit_b_32 ...]

Random weights, batch-norm statistics from one batch of random images, float64, a first-order field at a tiny eps on a
small input. *ratio* is the mean width of RSIP-SSIP's logit bounds over the range of the logits on sampled fields.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision
from rich.console import Console
from torch import Tensor, nn

from robnet_fx import BiasField, RobnetError, trace
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem
from tests.benchmarks.page import parse, publish

FAMILIES = {
    "alexnet": 64, "vgg11": 32, "vgg11_bn": 32, "vgg16_bn": 32, "resnet18": 32, "resnet34": 32, "resnet50": 32,
    "resnext50_32x4d": 32, "wide_resnet50_2": 32, "densenet121": 32, "googlenet": 32, "inception_v3": 75,
    "squeezenet1_0": 32, "squeezenet1_1": 32, "mobilenet_v2": 32, "mobilenet_v3_small": 32, "mobilenet_v3_large": 32,
    "mnasnet0_5": 32, "mnasnet1_0": 32, "shufflenet_v2_x0_5": 32, "shufflenet_v2_x1_0": 32, "efficientnet_b0": 32,
    "efficientnet_v2_s": 32, "regnet_x_400mf": 32, "regnet_y_400mf": 32, "convnext_tiny": 32, "vit_b_32": 32,
    "swin_t": 32,
}  # fmt: skip
METHODS = ("ibp", "ssip", "rsip-ssip")
ANCHORED = "rsip-anchored"
TOO_SLOW = {"swin_t"}  # 12 anchors, each minutes of rows through padded windows
EPS, SAMPLES, MOST = 1e-9, 32, 100.0


def main() -> None:
    options = parse(__doc__, "only these networks")
    torch.set_default_dtype(torch.float64)
    rows = []
    for name in options.names or FAMILIES:
        rows.append({"name": name, **examine(name, FAMILIES[name])})
        Console(stderr=True).print(rows[-1])
    publish(document(rows), options.out)


@torch.no_grad()
def examine(name: str, size: int) -> dict[str, Any]:
    """One row: each column yes, no or a number, and the reason where it stops."""
    row: dict[str, Any] = dict.fromkeys(("trace", *METHODS, "finite", "sound"), False)
    row |= {"ratio": None, "anchored": None, "reason": ""}
    start = time.perf_counter()
    torch.manual_seed(0)
    extra = {"init_weights": True, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    extra |= {"image_size": size} if name.startswith("vit") else {}
    model = getattr(torchvision.models, name)(num_classes=10, **extra)
    settle(model, torch.rand(16, 3, size, size))
    images = torch.rand(2, 3, size, size)
    try:
        canonical = trace(model, images)
        row["trace"] = True
        field = BiasField(1, EPS)
        net = BoundedModel(canonical, Problem(field))
        logits = sampled(net, images)
        spec = torch.eye(10).expand(2, -1, -1)
        bounds = {}

        def ratio(method: str) -> float:
            """The method's width over the sampled range; its bounds are kept."""
            lower, upper = bounds[method] = BoundedModel(canonical, Problem(field), method).bounds(images, spec)
            return float((upper - lower).mean() / (logits.amax(0) - logits.amin(0)).mean())

        for method in METHODS:
            row["ratio"], row[method] = ratio(method), True
        if not row["ratio"] <= MOST and name in TOO_SLOW:
            row["reason"] = "loose, and anchors take more than an hour"
        elif not row["ratio"] <= MOST:
            row["anchored"] = ratio(ANCHORED)
        row["finite"] = all(bool(side.isfinite().all()) for pair in bounds.values() for side in pair)
        slack = 1e-9 * (1 + logits.abs().amax())
        # A bound that is NaN or infinite claims nothing, so it is not unsound; it certifies nothing either.
        row["sound"] = not any(
            bool(((logits < lower - slack) | (logits > upper + slack)).any()) for lower, upper in bounds.values()
        )
        if not row["finite"]:
            row["reason"] = "bounds that are not finite: they certify nothing"
    except RobnetError as error:
        row["reason"] = str(error).splitlines()[0]
    row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def settle(model: nn.Module, images: Tensor) -> None:
    """Batch-norm statistics as after training: those of a batch, so that activations keep their size.

    A head that starts at zero gets weights: logits that never move say nothing about bounds.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and not bool(layer.weight.any()):
            nn.init.normal_(layer.weight, std=0.02)
    with _momentum(model):
        model.train()
        model(images)
    model.eval()


@contextmanager
def _momentum(model: nn.Module) -> Iterator[None]:
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    yield
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum


def sampled(net: BoundedModel, images: Tensor) -> Tensor:
    """Logits `[SAMPLES, B, classes]` at corners and inner points of the box."""
    t = torch.rand(SAMPLES, len(net.center)) * 2 - 1
    t[::2] = t[::2].sign()
    return torch.stack([net.perturbed((net.center + net.radius * row).expand(len(images), -1), images) for row in t])


def green(row: dict[str, Any]) -> bool:
    """Green in every column, with anchors where it needs them."""
    tight = any(ratio is not None and ratio <= MOST for ratio in (row["ratio"], row["anchored"]))
    return tight and all(row[key] for key in ("trace", *METHODS, "finite", "sound"))


def document(rows: list[dict[str, Any]]) -> str:
    """The page, in Markdown."""
    lines = [
        "# Coverage",
        "",
        "Made by `python -m tests.benchmarks.coverage --out docs/coverage.md`. torchvision's classifiers with random",
        "weights and batch-norm statistics of one batch, in float64, bounded against a first-order field at eps "
        f"{EPS:g} on a small input.",
        f"*ratio*: mean width of RSIP-SSIP's logit bounds over the range of the logits on {SAMPLES} sampled fields.",
        f"Where it is above {MOST:g}, *anchored* is the same for RSIP-SSIP whose SSIP starts anew from RSIP at anchors",
        "(method `rsip-anchored`).",
        "",
        f"{sum(map(green, rows))} of {len(rows)} are green in every column (ratio at most {MOST:g}), "
        f"{sum(green(row) and row['anchored'] is None for row in rows)} of them without anchors.",
        "",
        "| network | input | trace | IBP | SSIP | RSIP-SSIP | finite | sound | ratio | anchored | seconds | |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        marks = ["yes" if row[key] else "**no**" for key in ("trace", *METHODS, "finite", "sound")]
        ratios = ["" if row[key] is None else f"{row[key]:.3g}" for key in ("ratio", "anchored")]
        size = FAMILIES[row["name"]]
        lines.append(
            f"| {row['name']} | {size}x{size} | {' | '.join([*marks, *ratios])} | {row['seconds']} | {row['reason']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
