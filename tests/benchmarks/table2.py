"""Standard against RSIP-IBP against RSIP-SSIP training on one network: the small form of the paper's Table 2.

    python tests/benchmarks/table2.py --data cifar.npz --images 10000 --epochs 8 --seeds 3 --out table2.json

Each seed trains a standard network on the whole training set, then continues it twice on the same subset with the same
short schedule, once with each method. Every network is certified with RSIP-SSIP in float64 on the same test images.
The mean width of `pre` is given for every layer, under both methods' own intermediate bounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from robnet_fx import BiasField, bound
from robnet_fx.images.pixels import subset, to_float
from robnet_fx.machine.files import write_atomically
from robnet_fx.train.loop import train
from robnet_fx.train.recipe import Phase, Recipe
from robnet_fx.verify import certify
from robnet_fx.zoo.data import load
from robnet_fx.zoo.models import dm_small

METHODS = {"RI": "rsip-ibp", "RS": "rsip-ssip"}


def main() -> None:
    options = parse()
    data = load(options.data)
    field = BiasField(3, options.eps / 255)
    test = subset(len(data.x_test), options.test)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        standard = dm_small()
        example = to_float(data.x_train[:2], torch.zeros(()))
        phases = tuple(Phase(f"standard {lr:g}", options.standard // 2, lr, robust=False) for lr in (1e-3, 1e-4))
        train(
            bound(standard, field, example=example), data.x_train, data.y_train, Recipe(phases, seed=seed, augment=True)
        )
        chosen = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(seed))[: options.images]
        for name in ("Std", *METHODS):
            start = time.time()
            network = copy.deepcopy(standard)
            if name in METHODS:
                net = bound(network, field, METHODS[name], example=example)
                recipe = Recipe.short(options.epochs, seed=seed, alpha=options.alpha)
                train(net, data.x_train[chosen], data.y_train[chosen], recipe)
            rows.append({"seed": seed, "network": name, "seconds": round(time.time() - start, 1)})
            rows[-1] |= measure(network, field, data.x_test[test], data.y_test[test])
            Console(stderr=True).print(rows[-1])
    show(rows)
    if options.out:
        with write_atomically(options.out) as file:
            file.write(json.dumps({"options": vars(options) | {"out": None}, "rows": rows}, indent=1).encode())


def measure(network: nn.Module, field: BiasField, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Clean and certified accuracy, and the mean width of `pre` layer by layer for either method."""
    sample = to_float(images[:128], torch.zeros(()))
    judge = bound(network, field, "rsip-ssip", example=sample[:2])
    certificate = certify(judge, images, labels)
    widths = {}
    for method in METHODS.values():
        with torch.no_grad():
            pre = bound(network, field, method, example=sample[:2]).intermediate(sample)
        widths[method] = {name: float((upper - lower).mean()) for name, (lower, upper) in pre.items()}
    return {"clean": certificate.clean_accuracy, "certified": certificate.certified_accuracy, "widths": widths}


def show(rows: list[dict[str, Any]]) -> None:
    """Means over the seeds, with the range; widths of the network's own layers."""
    layers = [name for name in rows[0]["widths"]["rsip-ssip"] if not name.startswith(("field", "clip"))]
    table = Table("network", "clean %", "certified %", *(f"width {name} IBP / SSIP" for name in layers))
    for name in ("Std", *METHODS):
        own = [row for row in rows if row["network"] == name]
        cells = [spread([100 * row[key] for row in own]) for key in ("clean", "certified")]
        for layer in layers:
            means = [statistics.mean(row["widths"][method][layer] for row in own) for method in METHODS.values()]
            cells.append(" / ".join(f"{mean:.3g}" for mean in means))
        table.add_row(name, *cells)
    Console(width=160).print(table)


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="what `robnet-fx robustify --data` takes")
    parser.add_argument("--eps", type=float, default=40, help="pixel levels")
    parser.add_argument("--alpha", type=float, default=1)
    parser.add_argument("--images", type=int, default=10000, help="training images of the robust phases")
    parser.add_argument("--standard", type=int, default=12, help="epochs of standard training before")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the robust schedule")
    parser.add_argument("--test", type=int, default=1000, help="test images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
