"""Training runs and verdicts of the paper's networks side by side on one device, each a process of its own.

    python -m tests.benchmarks.cells PLAN.json --data FOLDER --out FOLDER [--device cuda] [--at-once 8] [--seconds 500]

PLAN.json is a list of objects, each with a `name` and what differs from `USUAL`. `network` is one of the zoo, `start`
the run, or the .pt file, whose weights it goes on from. With `standard` or `robust` epochs, of the paper's schedule in
so many, it is trained, and `<name>.pt` has its weights; with `judge` that many test images get their three answers.
`<name>.json` has what was found. FOLDER has `x.npy`, `y.npy`, `tx.npy`, `ty.npy`: images uint8 [N, C, H, W] and labels,
to train and to test. What goes on from another run waits for it. `seconds` ends what is not done.

A step of a small network waits for launches, so that several share a GPU; under MPS (`nvidia-cuda-mps-control -d`)
eight at once take as long as one alone, and seventeen twice as long (one H100, batches of 256).
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from robnet_fx import BiasField, Limits, bound, certify
from robnet_fx.machine.files import write_atomically
from robnet_fx.machine.memory import at_most
from robnet_fx.train import Phase, Recipe, train
from robnet_fx.train.objectives import objective_named
from robnet_fx.verify.certificate import Certificate, Unfinished
from robnet_fx.zoo.models import architecture
from tests.benchmarks.epoch import Clock

USUAL: dict[str, Any] = {
    "network": "dm-small",
    "start": None,
    "eps": 40,
    "standard": 0,
    "robust": 0,
    "method": "rsip-ssip",
    "objective": "equation-6",
    "alpha": 1.0,
    "batch_size": 256,
    "lr": 5e-4,
    "seed": 0,
    "images": None,  # the first so many of the training set
    "precision": "tf32",
    "judge": 0,
    "boxes": 256,
    "symbols": 4096,
}
_SHARE = 8 * 2**30  # bytes of the device for each verdict


def main() -> None:
    options = parse()
    if options.only:
        work(options)
        return
    console, begun = Console(width=160), time.perf_counter()
    plan = {run["name"]: run for run in json.loads(options.plan.read_text())}
    waiting, running, done = [*plan], dict[str, subprocess.Popen[bytes]](), set[str]()
    while (waiting or running) and time.perf_counter() - begun < options.seconds:
        for name in [name for name, process in running.items() if process.poll() is not None]:
            if failed := running.pop(name).returncode:
                console.print(f"{name} ended with {failed}")
            else:
                done.add(name)
                console.print(name, json.loads((options.out / f"{name}.json").read_text())["found"])
        for name in [*waiting]:
            start = plan[name].get("start")
            if len(running) < options.at_once and (start not in plan or start in done):
                waiting.remove(name)
                command = [sys.executable, "-m", "tests.benchmarks.cells", *sys.argv[1:], "--only", name]
                running[name] = subprocess.Popen(command)
        time.sleep(0.1)
        if waiting and not running:
            break  # for what failed
    for process in running.values():
        process.send_signal(signal.SIGINT)  # verdicts keep what they know
    for process in running.values():
        process.wait()
    console.print(f"{len(done)} of {len(plan)} in {time.perf_counter() - begun:.0f} s")


def work(options: argparse.Namespace) -> None:
    """One run, in this process."""
    torch.set_num_threads(1)
    (said,) = (run for run in json.loads(options.plan.read_text()) if run["name"] == options.only)
    run = USUAL | said
    torch.manual_seed(run["seed"])
    network = architecture(run["network"]).build()
    if run["start"]:
        path = Path(run["start"]) if run["start"].endswith(".pt") else options.out / f"{run['start']}.pt"
        network.load_state_dict({name: value.float() for name, value in torch.load(path).items()})
    start = time.perf_counter()
    document = judged(network, run, options) if run["judge"] else trained(network, run, options)
    document = {"run": run, "seconds": time.perf_counter() - start, **document}
    with write_atomically(options.out / f"{run['name']}.json") as file:
        file.write(json.dumps(document, indent=1, default=str).encode())


def trained(network: nn.Module, run: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The last epoch's figures and all others; the weights are written."""
    images, labels = (part[: run["images"]] for part in read(options.data, "x.npy", "y.npy"))
    field, example = BiasField(3, run["eps"] / 255), images[:2].float() / 255
    net = bound(network, field, run["method"], example=example).to(options.device)
    phases: tuple[Phase, ...] = ()
    if run["standard"]:
        phases += tuple(phase for phase in Recipe.short(run["standard"], pretrain=True).phases if not phase.robust)
    if run["robust"]:
        phases += Recipe.short(run["robust"], lr=run["lr"]).phases
    common = {key: run[key] for key in ("batch_size", "alpha", "seed", "precision")}
    recipe, clock = Recipe(phases, augment=True, **common), Clock(net.center.device)
    history = train(net, images, labels, recipe, objective=objective_named(run["objective"]), progress=clock)
    with write_atomically(options.out / f"{run['name']}.pt") as file:
        torch.save({name: value.cpu() for name, value in net.model.state_dict().items()}, file)
    last = history.epochs[-1] | {"seconds": clock.times[-1] - clock.times[-1 - -(-len(images) // run["batch_size"])]}
    return {"found": last, "epochs": history.epochs}


def judged(network: nn.Module, run: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Accuracies of the first test images, and each one's answer."""
    images, labels = (part[: run["judge"]] for part in read(options.data, "tx.npy", "ty.npy"))
    field, example = BiasField(3, run["eps"] / 255), images[:2].float() / 255
    net = bound(network, field, example=example, symbols=run["symbols"]).to(options.device)
    with at_most(_SHARE):
        document = verdict(net, images, labels, Limits(boxes=run["boxes"])).document()
    names = ("clean_accuracy", "attacked_accuracy", "certified_accuracy", "one_box_accuracy", "unknown")
    return {"found": {name: document[name] for name in names}, "certificate": document}


def verdict(net: Any, images: Tensor, labels: Tensor, limits: Limits) -> Certificate:
    try:
        return certify(net, images, labels, limits=limits)
    except Unfinished as unfinished:
        return unfinished.certificate


def read(folder: Path, *names: str) -> list[Tensor]:
    return [torch.from_numpy(np.load(folder / name)) for name in names]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--only", help="this run, in this process")
    return parser.parse_args()


if __name__ == "__main__":
    main()
