"""Cells of a table, one after the other: each trained, judged and written down, unless that was done before."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from robnet_fx.errors import Interrupted
from robnet_fx.machine.files import read_json
from robnet_fx.perturbations.bias_field import BiasField
from robnet_fx.problem import Problem
from robnet_fx.reproduce.bench import Bench
from robnet_fx.reproduce.judging import judge, shares
from robnet_fx.reproduce.training import trained
from robnet_fx.train.run_folder import write_json
from robnet_fx.verify.certificate import about
from robnet_fx.verify.convert import in_dtype
from robnet_fx.verify.record import record
from robnet_fx.verify.search import Limits
from robnet_fx.zoo.tables import NEAR, Cell

SYMBOLS = 1024
"""Errors of relaxations that verdicts keep, whatever memory there is, so that they can be repeated: on these networks
as good as all of them (docs/symbols.md)."""
METHOD = "rsip-ssip"
"""The bounds that judge, whatever was trained on."""


def run(cells: Sequence[tuple[Cell, Cell]], bench: Bench, command: str) -> None:
    """Have the record of each (cell, its standard cell) in the bench's folder; `command` is what was typed.

    What is there stays; what was stopped, by Ctrl-C or by force, goes on. Raises `Interrupted` on Ctrl-C, and
    `UsageError` for a folder that holds cells of other settings.
    """
    with bench.progress.task("cells", len(cells)) as task:
        for number, (cell, standard) in enumerate(cells):
            task.advance(0, cell=cell.name)
            try:
                _done(cell, standard, bench, command)
            except (KeyboardInterrupt, Interrupted) as stop:
                where = (
                    f" {str(stop).partition(';')[0].removeprefix('stopped ')}" if isinstance(stop, Interrupted) else ""
                )
                raise Interrupted(
                    f"stopped at {cell.name}{where}; {number} of {len(cells)} cells are done\n"
                    "  resume  the same command goes on from here"
                ) from None
            task.advance(1)


def _done(cell: Cell, standard: Cell, bench: Bench, command: str) -> None:
    training, limits = trained(cell, standard, bench), Limits(boxes=bench.settings.boxes)
    index, images, labels = bench.test()
    there = read_json(bench.result(cell))
    asked = {"training": training, "limits": asdict(limits), "images": len(labels)}
    if there is not None and all(there.get(name) == value for name, value in asked.items()):
        return
    file = bench.network(cell)
    opened = bench.opened(cell, file)
    net = opened.bound(Problem(BiasField(3, cell.eps / 255)), METHOD, SYMBOLS)
    samples = judge(net, images, labels, limits, bench.work(cell.name), bench.progress)
    numbers = index.tolist()
    samples = [{**sample, "index": numbers[sample["index"]]} for sample in samples]
    own = {
        "cell": cell.name,
        "network": cell.network,
        "column": cell.column,
        "alpha": training["alpha"],
        "paper": cell.paper.shares,
        **shares(samples),
        **asked,
        "without_copies": _without_copies(cell, bench, samples),
        "files": {"model": str(file)},
        "certify": recertify(cell, bench),
        "command_line": command,
    }
    basis = about(net, in_dtype(net, torch.float64), images, labels, file)
    write_json(bench.result(cell), record("cell", opened.document(), basis, own, {"samples": samples}))
    bench.finished(cell.name)


def _without_copies(cell: Cell, bench: Bench, samples: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """The figures without the test images that have a near copy in training, where the data set has such."""
    if not cell.images.copies:
        return None
    own = [sample for sample in samples if not bench.copied[sample["index"]]]
    return {"below": NEAR, **shares(own)} if own else None


def recertify(cell: Cell, bench: Bench) -> str:
    """The command that gives the answers about a cell's network once more."""
    few = [] if bench.settings.test_limit is None else ["--limit", str(bench.settings.test_limit)]
    options = ["--order", "3", "--eps", f"{cell.eps:g}", "--boxes", str(bench.settings.boxes)]
    judged = [str(bench.network(cell)), "--data", bench.data.name]
    return shlex.join(["robnet-fx", "certify", *judged, *options, "--symbols", str(SYMBOLS), *few])
