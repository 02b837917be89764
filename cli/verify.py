"""`robnet-fx verify`: whether a property of a network holds, as other verifiers are asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from robnet_fx.cli import options, texts
from robnet_fx.cli.groups import grouped


@grouped
def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A network: .onnx or .onnx.gz.", show_default=False)],
    stated: Annotated[
        Path, typer.Argument(metavar="PROPERTY", help="A property of it: .vnnlib or .vnnlib.gz.", show_default=False)
    ],
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", help="Seconds for the whole command.", show_default="300, none with --boxes"),
    ] = None,
    boxes: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Bound at most N boxes of inputs a case.", show_default=False),
    ] = None,
    device: options.Device = None,
    memory: options.Memory = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=options.target,
            help="Write the answer as the competition has it: unsat, sat, ...",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Say whether PROPERTY, a VNN-LIB file, holds for MODEL, any network with bound rules.

    The first word on standard output is holds, violated, unknown or timeout. Of a violated property a counterexample
    follows, an input in the box with the outputs that onnxruntime has for it. All four are answers and end with 0.

    Example: `robnet-fx verify network.onnx property.vnnlib --timeout 60`
    """
    start, allowed = time.monotonic(), texts.read_memory(memory)

    import torch

    from robnet_fx.bounds.methods import default_method
    from robnet_fx.bounds.model import BoundedModel
    from robnet_fx.cli.errors import warn
    from robnet_fx.cli.opened import usual_symbols
    from robnet_fx.cli.output import announce, show
    from robnet_fx.cli.pace import settle_by_bounds
    from robnet_fx.interchange.results import counterexample, write_results
    from robnet_fx.interchange.vnnlib import read_vnnlib
    from robnet_fx.machine.files import sha256_of_file
    from robnet_fx.machine.memory import at_most
    from robnet_fx.opening.instance import open_instance
    from robnet_fx.report.console import notes
    from robnet_fx.report.panels import describe_method
    from robnet_fx.report.progress import Bars
    from robnet_fx.verify.record import hashes, record
    from robnet_fx.verify.search import Limits
    from robnet_fx.verify.solve import solve

    instance = open_instance(model, read_vnnlib(stated), device)
    box, problem = instance.box, instance.problem
    transform = box.build(instance.layout.image)
    method = default_method(transform)
    with at_most(allowed):
        symbols = usual_symbols(instance, problem, method, None)
    net = BoundedModel(instance.canonical, problem, method, symbols).to(instance.device)
    shown = describe_method(method, None, None, transform.dimensions, net.symbols)
    lines = {
        "model": f"{model}: {instance.stated.inputs} inputs, {instance.stated.outputs} outputs",
        "property": f"{stated}: {len(instance.cases)} box{'es' * (len(instance.cases) > 1)}",
        **instance.remarks,
        "box": f"D = {transform.dimensions}: the inputs that are not fixed",
        "method": f"{shown}, float64",
        "device": str(instance.device),
    }
    announce("verify", lines)
    if instance.stated.empty:
        warn(f"{stated}: {instance.stated.empty} boxes are empty and hold no input")

    middle = box.midpoint.reshape(1, *net.input_shape)
    settle_by_bounds(net, middle, torch.zeros(1, dtype=torch.int64))
    seconds = 300.0 if timeout is None and boxes is None else timeout
    limits = Limits(None if seconds is None else seconds - (time.monotonic() - start), boxes)
    with at_most(allowed):
        solved = solve(net, instance.cases, instance.confirm, limits=limits, progress=Bars(notes()))
    for reason in solved.reasons:
        warn(reason)
    if results is not None:
        write_results(results, solved)
    document = record(
        "verify",
        {"model": str(model), "property": str(stated), "remarks": instance.remarks},
        {"method": method, "symbols": net.symbols, "dtype": "float64", "device": str(instance.device)},
        {
            "limits": {"seconds": seconds, "boxes": boxes},
            **hashes(net, model),
            "property_sha256": sha256_of_file(stated),
        },
        solved.document(),
    )
    found = solved.counterexample
    show(document, "\n".join(filter(None, (solved.answer, counterexample(found) if found else ""))), as_json=json)
