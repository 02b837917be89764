"""`robnet-fx reproduce`: the tables of the paper, cell by cell, from fresh weights to certified test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robnet_fx.cli import options, texts
from robnet_fx.cli.groups import grouped

if TYPE_CHECKING:
    from robnet_fx.reproduce.bench import Settings
    from robnet_fx.zoo.tables import Cell, Table


@grouped
def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table1, table2 or table3.", show_default=False)],
    images: options.Images,
    row: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="Only this row (SC, eps=40, alpha=0.5); may be repeated.", show_default="all"),
    ] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option(metavar="CELL", help="Only std, ri, rs or best; may be repeated.", show_default="all"),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="paper: standard, RSIP-IBP, RSIP-SSIP. best: one more, trained on parts of the box.")
    ] = "paper",
    scale: Annotated[float, typer.Option(metavar="SHARE", help="The share of the paper's epochs: 0.1.")] = 1.0,
    boxes: Annotated[
        int, typer.Option(metavar="N", help="Parts of the box that an image's three answers may take.")
    ] = 64,
    test_limit: options.Limit = None,
    precision: Annotated[str, typer.Option(help="Of training steps: float32, tf32 or bf16.")] = "tf32",
    seed: options.Seed = 0,
    device: options.Device = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where cells are, and what is not done.")] = Path(
        "reproduced"
    ),
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Stop after 2h, 90m or 3600 (seconds); the same command goes on.", show_default="none"
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Run nothing: what there is, beside the paper's figures.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as a section of a page in Markdown.")] = False,
    json: options.Json = False,
) -> None:
    """Train and certify the networks of a table of the paper, and set the figures beside the paper's.

    Tables 1 and 2 are of cifar10, table 3 of brain MRI slices, which `--data` names. Each cell leaves a JSON record and
    an ONNX file in DIR. Stopped at any moment, the same command goes on; what is done is not done again.

    Example: `robnet-fx reproduce table2 --row SC --scale 0.1`
    """
    seconds = texts.read_time(time_limit)

    from robnet_fx.cli import pages
    from robnet_fx.cli.output import show as tell
    from robnet_fx.errors import UsageError
    from robnet_fx.report.cells import comparison
    from robnet_fx.report.cells import markdown as page
    from robnet_fx.report.console import results, say
    from robnet_fx.reproduce.bench import Settings
    from robnet_fx.reproduce.comparison import compare
    from robnet_fx.verify.record import record
    from robnet_fx.zoo.tables import table as named

    chosen = named(table)
    cells = chosen.chosen(row or [], cell or [], recipe)
    if json and markdown:
        raise UsageError("--json and --markdown are two forms of the same: give one of them")
    command = pages.typed(context)
    if not show:
        settings = Settings(scale, boxes, test_limit, seed, precision, device)
        pairs = [(one, chosen.rows[name]["std"]) for name, one in cells]
        _run(chosen, [*dict.fromkeys(pairs)], images, settings, out, seconds, command)
    lines = compare(cells, out)
    title = f"Table {chosen.number}: {chosen.title}"
    if markdown:
        say(results(), page(title, lines))
        return
    document = record("reproduce", {"table": table, "title": title, "cells": lines, "command_line": command})
    tell(document, comparison(title, lines), as_json=json)


def _run(
    table: Table,
    cells: Sequence[tuple[Cell, Cell]],
    images: options.Images,
    settings: Settings,
    out: Path,
    seconds: float | None,
    command: str,
) -> None:
    """Work the (cell, its standard cell) that are not done."""
    from robnet_fx.cli.certificates import told
    from robnet_fx.cli.opened import describe_data
    from robnet_fx.cli.output import announce
    from robnet_fx.cli.pace import settle_by_network
    from robnet_fx.errors import UsageError
    from robnet_fx.machine.time_limit import time_limit
    from robnet_fx.report.console import notes
    from robnet_fx.report.panels import with_symbols
    from robnet_fx.report.progress import Bars
    from robnet_fx.reproduce.bench import open_bench
    from robnet_fx.reproduce.cells import METHOD, SYMBOLS, run
    from robnet_fx.verify.search import Limits
    from robnet_fx.zoo.named import NAMED
    from robnet_fx.zoo.tables import BATCH_SIZE

    first, _ = cells[0]
    spec = images.data or first.data
    if images.data is None and first.data not in NAMED:
        raise UsageError(
            f"table {table.number} is of brain MRI slices, which are not downloaded\n"
            "  remedy  --data FOLDER with Training/<class>/ and Testing/<class>/ images, or an .npz file"
        )
    with time_limit(seconds):
        bench, opened = open_bench(first, spec, images.reading(settings.seed), settings, out, Bars(notes()))
        schedule = f"{settings.epochs} epochs standard and robust, {settings.scale:g} of the paper's"
        augmented = "mirrored and shifted" if first.images.augment else "as they are"
        verdicts = f"{with_symbols(METHOD, SYMBOLS)}, {told(Limits(boxes=settings.boxes))}"
        lines = {
            "table": f"{table.number}, {table.title}",
            "cells": ", ".join(cell.name for cell, _ in cells),
            "data": describe_data(bench.data),
            "training": f"{schedule}, batches of {BATCH_SIZE} {augmented}, seed {settings.seed}",
            "verdicts": verdicts,
            "device": str(opened.device),
            "folder": str(out),
        }
        announce("reproduce", lines)
        settle_by_network(opened.canonical, bench.data.x_train, opened.device)
        run(cells, bench, command)
