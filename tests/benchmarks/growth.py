"""How time and memory of RSIP-SSIP bounds grow with the dimensions of the field, the batch, depth, size and classes.

    python -m tests.benchmarks.growth [--threads 2] [--json growth.json]
    python -m tests.benchmarks.growth --resnet18      one image of 224x224 and 1000 classes

Each sweep changes one thing about a small network of equal convolutions and fits `cost = c x^e` through the larger half
of its points, a step with gradients in float32. No exponent of D, batch or classes may be above 1, but for noise: what
does not grow with them only lowers it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich.console import Console
from rich.table import Table
from torch import nn

from robnet_fx import BiasField, bound
from robnet_fx.machine.allocator import keep_freed_memory
from robnet_fx.machine.memory import available_memory
from tests.benchmarks.coverage import settle
from tests.benchmarks.speed import peak, start_of_peak

EPS = 1 / 255
BASE = {"order": 3, "batch": 8, "depth": 3, "size": 24, "classes": 10}
SWEEPS = {
    "order": (0, 1, 2, 3, 4, 5),
    "batch": (2, 4, 8, 16, 32),
    "depth": (1, 2, 4, 8),
    "size": (12, 16, 24, 32, 48),
    "classes": (3, 10, 30, 100),
}
CPU = torch.device("cpu")


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    if options.resnet18:
        Console().print(resnet18())
        return
    document = {name: sweep(name, values) for name, values in SWEEPS.items()}
    Console().print(table(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))


def network(depth: int, size: int, classes: int) -> nn.Module:
    """Convolutions of 16 channels at full resolution, then a linear layer over averages of 4 x 4."""
    layers: list[nn.Module] = []
    for layer in range(depth):
        layers += [nn.Conv2d(16 if layer else 3, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(size // 4), nn.Flatten(), nn.Linear(256, classes))


def sweep(name: str, values: tuple[int, ...]) -> dict[str, Any]:
    """Seconds and MiB of one step at each value, and the exponents of both."""
    points = [measure(BASE | {name: value}) for value in values]
    sizes = [(value + 1) ** 2 if name == "order" else value**2 if name == "size" else value for value in values]
    sizes = [size - 1 for size in sizes] if name == "classes" else sizes
    seconds, mebibytes = zip(*points, strict=True)
    return {
        "values": values,
        "sizes": sizes,
        "seconds": seconds,
        "MiB": mebibytes,
        "exponents": (exponent(sizes, seconds), exponent(sizes, mebibytes)),
    }


def measure(setting: dict[str, int]) -> tuple[float, float]:
    """(seconds, MiB) of one step of bounds with gradients; seconds are the best of three."""
    torch.manual_seed(0)
    images = torch.rand(setting["batch"], 3, setting["size"], setting["size"])
    model = network(setting["depth"], setting["size"], setting["classes"])
    net = bound(model, BiasField(setting["order"], EPS), example=images[:2])
    labels = net.logits(images).argmax(1)

    def step() -> None:
        margins = net.margins(images, labels)
        margins.clamp(min=-1e3).relu().sum().backward()

    step()
    held = start_of_peak(CPU)
    step()
    most = peak(CPU)
    return best(step), max(most - held, 0.1)


def best(work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def exponent(sizes: list[int], costs: tuple[float, ...]) -> float:
    """The least-squares slope of log cost over log size, over the larger half of the points."""
    half = len(sizes) // 2
    points = [(math.log(size), math.log(cost)) for size, cost in zip(sizes[half:], costs[half:], strict=True)]
    middle = [sum(values) / len(points) for values in zip(*points, strict=True)]
    over = sum((x - middle[0]) * (y - middle[1]) for x, y in points)
    return over / sum((x - middle[0]) ** 2 for x, _ in points)


def resnet18() -> str:
    """RSIP-SSIP margins of one image without gradients, in float32."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=1000)
    settle(model, torch.rand(4, 3, 224, 224))
    image = torch.rand(1, 3, 224, 224)
    net = bound(model, BiasField(3, 1e-6), example=image.expand(2, -1, -1, -1))
    label = net.logits(image).argmax(1)
    free, held = available_memory(CPU) / 2**30, start_of_peak(CPU)
    start = time.perf_counter()
    with torch.no_grad():
        margins = net.margins(image, label)
    seconds = time.perf_counter() - start
    finite = bool(margins[margins > -torch.inf].isfinite().all())
    return (
        f"ResNet-18, 224x224, 1000 classes, order 3: {seconds:.0f} s, {(peak(CPU) - held) / 1024:.1f} GiB "
        f"of {free:.1f} free, {torch.get_num_threads()} threads; finite {finite}"
    )


def table(document: dict[str, Any]) -> Table:
    shown = Table(title="one step of RSIP-SSIP with gradients")
    for column in ("sweep", "size", "seconds", "MiB", "exponent of time", "of memory"):
        shown.add_column(column, justify="right")
    for name, found in document.items():
        time_exponent, memory_exponent = (f"{e:.2f}" for e in found["exponents"])
        shown.add_row(
            {"order": "D", "size": "pixels", "classes": "K"}.get(name, name),
            " ".join(map(str, found["sizes"])),
            " ".join(f"{s:.3f}" for s in found["seconds"]),
            " ".join(f"{m:.0f}" for m in found["MiB"]),
            time_exponent,
            memory_exponent,
        )
    return shown


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: as torch would)")
    parser.add_argument("--resnet18", action="store_true", help="one image of 224x224 and 1000 classes instead")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
