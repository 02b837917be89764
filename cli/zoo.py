"""`robnet-fx zoo`: the networks that come with robnet-fx."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robnet_fx.cli import options


def list_networks(json: options.Json = False) -> None:
    """List the networks that `zoo export` knows."""
    from robnet_fx.cli.output import show
    from robnet_fx.report.tables import table
    from robnet_fx.zoo.models import REGISTRY

    document = [
        {
            "name": name,
            "input_shape": list(entry.input_shape),
            "classes": entry.classes,
            "data": entry.data,
            "description": entry.description,
        }
        for name, entry in REGISTRY.items()
    ]
    rows = [
        [name, "x".join(map(str, entry.input_shape)), str(entry.classes), entry.data or "", entry.description]
        for name, entry in REGISTRY.items()
    ]
    columns = ["name", "input", "classes", "data", "description"]
    show({"networks": document}, table("zoo networks", columns, rows, right=["classes"]), as_json=json)


def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `zoo list`.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The ONNX file to write.", show_default=False)],
    seed: options.Seed = 0,
) -> None:
    """Write a network of the zoo as an ONNX file: digits trained, the others with random weights.

    Example: `robnet-fx zoo export digits digits.onnx`
    """
    from robnet_fx.report.console import notes, say
    from robnet_fx.zoo.export import export as write
    from robnet_fx.zoo.models import architecture

    architecture(name)
    write(name, out, seed)
    say(notes(), f"wrote {out}")
