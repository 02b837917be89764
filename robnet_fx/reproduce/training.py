"""The network of a cell: trained by the paper's schedule, from the start or from the standard network's file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from robnet_fx.errors import UsageError
from robnet_fx.images.sets import split
from robnet_fx.machine import ranks
from robnet_fx.machine.files import read_json, sha256_of_file, write_atomically
from robnet_fx.perturbations.bias_field import BiasField
from robnet_fx.problem import Problem
from robnet_fx.reproduce.bench import Bench
from robnet_fx.train.loop import train
from robnet_fx.train.objectives import objective_named
from robnet_fx.train.prepare import prepare
from robnet_fx.train.run_folder import CHECKPOINT, write_json
from robnet_fx.train.settings import Training
from robnet_fx.train.written import write
from robnet_fx.zoo.tables import BATCH_SIZE, Cell

_OF_SCALE = ("scale", "epochs")
"""What is asked of a network's training that depends on `--scale`."""


def trained(cell: Cell, standard: Cell, bench: Bench) -> dict[str, Any]:
    """What the record says of the training of a cell's network, which is in its file afterwards.

    `standard` is the cell whose network a robust one goes on from; it is trained first, unless there is one of any
    share of the paper's epochs. What was trained before is not trained again, and what was stopped goes on. No network
    is refused for what it does not know: that is a result. Raises `UsageError` where what is there was trained with
    other settings, and `Interrupted`.
    """
    if cell == standard:
        return _trained(cell, bench)
    before = _trained(standard, bench, free=_OF_SCALE)
    return _trained(cell, bench, bench.network(standard), before["epochs"])


def _trained(
    cell: Cell,
    bench: Bench,
    start: Path | None = None,
    epochs: int | None = None,
    free: Sequence[str] = (),
) -> dict[str, Any]:
    """The same of one network, from fresh weights or from those in the file `start`, which were trained for `epochs`.
    What is there may differ in the settings that are `free`."""
    target, asked = bench.network(cell), _asked(cell, bench)
    done = read_json(bench.training(cell))
    if done is not None:
        differing = [
            f"{name} {done.get(name)} -> {value}"
            for name, value in asked.items()
            if done.get(name) != value and name not in free
        ]
        if differing:
            raise UsageError(
                f"{target} was trained with other settings: {', '.join(differing)}\n  remedy  another folder with --out"
            )
        if target.is_file():
            return {name: value for name, value in done.items() if name != "history"}
    robust = cell.way.objective is not None  # a standard network knows no eps and no alpha
    problem = Problem(BiasField(3, cell.eps / 255 if robust else 0.0))
    opened = bench.opened(cell, start)
    said = cell.way.objective or "equation-6"
    training = Training(
        epochs=bench.settings.epochs,
        pretrain=True,
        method=cell.way.method,
        objective=said,
        alpha=cell.alpha if robust else 1.0,
        batch_size=BATCH_SIZE,
        augment=cell.images.augment,
        precision=bench.settings.precision,
        seed=bench.settings.seed,
    )
    objective = objective_named(said)
    parts = split(bench.data, None, None, bench.settings.seed)
    net, recipe, _ = prepare(opened, problem, training, cell.way.method, said, parts, bench.progress)
    recipe = replace(recipe, phases=tuple(phase for phase in recipe.phases if phase.robust == robust))
    folder = bench.work(cell.trained)
    checkpoint = folder / CHECKPOINT
    with _clock(folder / "seconds.json") as seconds:
        history = train(
            net,
            *parts.train,
            recipe,
            objective=objective,
            validation=parts.validation if robust else None,
            checkpoint=checkpoint,
            resume=checkpoint.is_file(),
            progress=bench.progress,
        )
        write(opened, net, target, bench.remembered)
    about = {
        **asked,
        "lr": recipe.phases[0].lr,
        "schedule": [asdict(phase) for phase in recipe.phases],
        "images": {"train": len(parts.train[1]), "validation": len(parts.validation[1])},
        "start": start and {"model": start.name, "sha256": sha256_of_file(start), "epochs": epochs},
        "selected": history.selected,
        "device": opened.device.type,
        "threads": torch.get_num_threads(),
        "seconds": round(sum(seconds), 1),
    }
    write_json(bench.training(cell), {**about, "history": history.epochs})
    bench.finished(cell.trained)
    return about


def _asked(cell: Cell, bench: Bench) -> dict[str, Any]:
    """What must be the same for what was trained to be what is asked for."""
    return {
        "scale": bench.settings.scale,
        "epochs": bench.settings.epochs,
        "method": cell.way.method if cell.way.objective else None,
        "objective": cell.way.objective,
        "alpha": cell.alpha if cell.way.objective else None,
        "batch_size": BATCH_SIZE,
        "augment": cell.images.augment,
        "seed": bench.settings.seed,
        "precision": bench.settings.precision,
        "data_sha256": bench.data.sha256,
    }


@contextmanager
def _clock(path: Path) -> Iterator[list[float]]:
    """The seconds of earlier runs, and at the end those of this one, which the next one finds however this one ends."""
    before = (read_json(path) or {}).get("seconds", 0.0)
    seconds, start = [before], time.perf_counter()
    try:
        yield seconds
    finally:
        seconds.append(time.perf_counter() - start)
        if ranks.leader():  # after Ctrl-C nobody waits for it
            with write_atomically(path) as file:
                file.write(json.dumps({"seconds": sum(seconds)}).encode())
