"""The dry run as a person reads it: coverage, what is missing and where, memory."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from robnet_fx.inspect.cost import Cost
from robnet_fx.inspect.coverage import Coverage, Gap
from robnet_fx.machine.memory import bytes_text
from robnet_fx.report.tables import table


def coverage_report(
    title: str, found: Coverage, boxes: Sequence[Cost], batch: int, available: int, device: str
) -> Group:
    """Coverage in per cent, a block for each node without a rule, what a batch needs of the available memory, and what
    one image's bounds over a box cost by their symbols."""
    head = Text.assemble(
        (f"{title}: ", "bold"),
        (percent(found), "bold green" if not found.gaps else "bold red"),
        f" of the operations that depend on the image have bound rules ({found.bounded} of {found.nodes})\n",
    )
    return Group(head, *map(_gap, found.gaps), _memory(found, batch, available, device), _boxes(boxes))


def percent(found: Coverage) -> str:
    """The share in per cent; 100 % only where nothing is missing."""
    share = found.share if not found.gaps else min(found.share, 0.999)
    return f"{share:.1%}" if found.gaps else f"{share:.0%}"


def _rounded(count: int) -> int:
    """Two digits, rounded down: an estimate."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return count // unit * unit


def _gap(gap: Gap) -> Text:
    lines = [("node", f"{gap.node}    {gap.shape}    {gap.operation}"), ("layer", gap.layer), ("source", gap.source)]
    lines += [("reason", gap.reason), ("remedy", gap.remedy)]
    block = Text()
    for name, value in lines:
        if value:
            block.append(f"  {name:<8}", "bold").append(f"{value}\n", "red" if name == "node" else "")
    return block


def _memory(found: Coverage, batch: int, available: int, device: str) -> Group:
    in_parts = "1, by --objective small-boxes" if found.one_margin.fits(available) else "none"
    columns = ["estimated memory", "an image", f"batch of {batch}", "largest batch that fits"]
    rows = [
        [
            name,
            bytes_text(need.image),
            bytes_text(need.of(batch)),
            f"{_rounded(need.fits(available)):,}" if need.fits(available) else scarce,
        ]
        for name, need, scarce in (
            ("robust training, float32", found.training, in_parts),
            ("verdicts, float64", found.verdicts, "none"),
        )
    ]
    title = f"rsip-ssip bounds on {device}, {bytes_text(available)} free (good to a factor of about 3)"
    return table(title, columns, rows, right=columns[1:])


def _boxes(costs: Sequence[Cost]) -> Group:
    columns = ["symbols", "memory", "seconds"]
    rows = [
        [str(cost.symbols), bytes_text(cost.memory), f"{cost.seconds:.2g}{'' if cost.measured else ' estimated'}"]
        for cost in costs
    ]
    return table("a verdict on one image over one box, all symbols in use", columns, rows, right=columns)
