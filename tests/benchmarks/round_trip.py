"""Torchvision networks through ONNX and back: the table of docs/round-trip.md.

    python -m tests.benchmarks.round_trip --out docs/round-trip.md [resnet18 densenet121 ...]

Each network (random weights, 3x32x32 images, 10 classes) is exported with a free batch by both of PyTorch's exporters,
loaded, robustified for a few RSIP-SSIP steps and written; onnxruntime judges the file before and after.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
import torchvision
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from robnet_fx import BiasField, Training, robustify
from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.frontend.onnx.runtime import OnnxSession, difference
from tests.benchmarks.page import parse, publish

# eps at which some image is not certified, so that the robust loss has a gradient; the weight of that loss, for the
# bounds of untrained networks are so wide that in float32 only a small one keeps the gradient finite; and the least
# variance of a batch norm: with less, DenseNet's bounds pass from nothing to overflow within a rounding error.
NETWORKS = {
    "resnet18": (1e-4, 1.0, 0.01),
    "mobilenet_v2": (1e-5, 1.0, 0.01),
    "densenet121": (1e-4, 1e-20, 3.0),
    "vgg11_bn": (1e-5, 1.0, 0.01),
    "efficientnet_b0": (1e-7, 1e-24, 0.01),
}
EXPORTERS = {"legacy": False, "dynamo": True}
COLUMNS = {"name": "network"} | {key: key for key in ("exporter", "opset", "loaded", "eps", "alpha", "floor", "steps")}
COLUMNS |= {"robust": "robust loss"} | {key: key for key in ("moved", "written", "form", "nodes")}
EPOCHS, BATCH, IMAGES, TESTED = 2, 2, 3, 1  # one of the images is held out: one step an epoch


def main() -> None:
    options = parse(__doc__, "only these networks")
    rows = []
    for name in options.names or NETWORKS:
        for exporter in EXPORTERS:
            with tempfile.TemporaryDirectory() as folder:
                rows.append({"name": name, "exporter": exporter, **there_and_back(name, exporter, Path(folder))})
            Console(stderr=True).print(rows[-1])
    publish(document(rows), options.out)


@dataclass
class Data:
    """Random photographs with the labels the network gives them: the robust loss counts correct images only."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    name: str = "random images"


def there_and_back(name: str, exporter: str, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    torch.manual_seed(0)
    start = time.perf_counter()
    model = network(name)
    eps, alpha, floor = NETWORKS[name]
    settle(model, photographs(64), floor)
    path, out = folder / "model.onnx", folder / "out.onnx"
    export(model, path, EXPORTERS[exporter])
    before, images = load_onnx(path), photographs(8)
    with torch.no_grad():
        loaded = max(difference(model(images), OnnxSession(path)(images)), difference(before(images), model(images)))
        pixels = (photographs(IMAGES + TESTED) * 255).round().to(torch.uint8)
        labels = before(pixels / 255).argmax(1)
    data = Data(pixels[:IMAGES], labels[:IMAGES], pixels[IMAGES:], labels[IMAGES:])
    training = Training(epochs=EPOCHS, batch_size=BATCH, alpha=alpha, objective="equation-6")
    options = {"out": out, "runs": folder / "runs", "device": "cpu"}
    result = robustify(path, data, BiasField(1, eps), training, **options)
    trained, robust = result.net.model, max(epoch["robust"] for epoch in result.history.epochs)
    assert robust > 0, f"every image of {name} is certified: the robust loss has no gradient"
    moved = [n for n, p in trained.named_parameters() if not torch.equal(p, before.get_parameter(n))]
    assert moved, f"training left the weights of {name} as they were"
    old, new = onnx.load(path), onnx.load(out)
    return {
        "eps": eps,
        "alpha": alpha,
        "floor": floor,
        "opset": old.opset_import[0].version,
        "loaded": loaded,
        "steps": EPOCHS * -(-result.images["train"] // BATCH),
        "robust": robust,
        "moved": f"{len(moved)} of {len(list(trained.parameters()))}",
        "written": difference(trained(images), OnnxSession(out)(images)),
        "form": result.exported,
        "nodes": len(old.graph.node),
        "same": list(old.graph.node) == list(new.graph.node),
        "seconds": round(time.perf_counter() - start),
    }


def network(name: str) -> nn.Module:
    """The torchvision network as one uses it on CIFAR, each batch norm with its own scales and shifts."""
    model: nn.Module = getattr(torchvision.models, name)(num_classes=10)
    if name.startswith("vgg"):
        model.avgpool, model.classifier[0] = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 4096)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return model.eval()


@torch.no_grad()
def settle(model: nn.Module, images: Tensor, floor: float) -> None:
    """Batch-norm statistics as after training: those of the images, but no variance below `floor`."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 1.0
        layer.train()
    model(images)
    model.eval()
    for layer in layers:
        layer.running_var.clamp_(min=floor)


def photographs(count: int) -> Tensor:
    """Smooth colours of many brightnesses with some noise: white noise all looks alike to a network.

    No pixel is saturated: equal pixels would tie in max pooling, where every bound has a kink.
    """
    colours = F.interpolate(torch.rand(count, 3, 4, 4), 32, mode="bilinear") * torch.rand(count, 3, 1, 1)
    return 0.9 * colours + 0.1 * torch.rand(count, 3, 32, 32)


def export(model: nn.Module, path: Path, dynamo: bool) -> None:
    """As a user does it, with the exporter's own choice of opset."""
    batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamo else {"dynamic_axes": {"image": [0]}}
    names = {"input_names": ["image"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (photographs(2),), str(path), dynamo=dynamo, verbose=False, **names, **batch)


def document(rows: list[dict[str, Any]]) -> str:
    """The page, in Markdown."""
    lines = [
        "# Round trip",
        "",
        "Made by `python -m tests.benchmarks.round_trip --out docs/round-trip.md`. torchvision networks with random",
        "weights, batch-norm statistics of one batch (no variance below *floor*), 3x32x32 images and 10 classes,",
        "exported with a free batch, loaded, robustified with RSIP-SSIP against a first-order field, and written.",
        "*Loaded* and *written*: the largest |onnxruntime - PyTorch| / (1 + |logit|) before and after. *Moved*: the",
        "parameters that training changed. *Robust loss*: its largest mean over an epoch, huge for networks that were",
        "never trained; *alpha* is its weight, with which every step has a finite gradient.",
        "vgg11_bn pools to 1x1, as one does on CIFAR: the legacy exporter has no form of pooling 1x1 to 7x7.",
        "",
        "| " + " | ".join(COLUMNS.values()) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    for row in rows:
        shown = row | {key: f"{row[key]:.1e}" for key in ("eps", "alpha", "loaded", "written", "robust")}
        shown["nodes"] = f"{row['nodes']}, {'the same' if row['same'] else '**changed**'}"
        lines.append("| " + " | ".join(str(shown[key]) for key in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
