"""`robnet-fx inspect`: the graphs between a network and its bounds, and the bounds on an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robnet_fx.cli import options
from robnet_fx.errors import UsageError


def inspect(
    model: options.ModelFile,
    stage: Annotated[
        str | None,
        typer.Option(
            help="Show a graph: source (as traced), passes (field and clip inserted) or bounds.",
            show_default="source, unless there is an --eps",
        ),
    ] = None,
    code: Annotated[bool, typer.Option("--code", help="Print the graph's Python code instead of a table.")] = False,
    eps: Annotated[
        str | None,
        typer.Option(
            metavar="EPS", help="Show every node's bounds under a field of this strength.", show_default=False
        ),
    ] = None,
    image: Annotated[
        int | None, typer.Option(metavar="N", help="The test image to bound (with --eps).", show_default="0")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page: graph, generated code, widths (with --eps).", show_default=False
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the bounds as an ONNX file of their own (with --eps).", show_default=False
        ),
    ] = None,
    order: options.Order = 3,
    data: options.Data = None,
    resize: options.Resize = None,
    white: options.White = None,
    test_share: options.TestShare = None,
    layout: options.Layout = None,
    flat: options.Flat = None,
    output: options.Output = None,
    method: options.Method = "rsip-ssip",
    mean: options.Mean = None,
    std: options.Std = None,
    clip: options.Clip = "relu",
    json: options.Json = False,
) -> None:
    """Look inside: MODEL's graph at a stage, as a table or as code; or with --eps the source graph against its bounds,
    how wide they are node by node, and where they blow up.

    The ONNX file of --onnx takes `image` and `spec` and gives `lower` and `upper`: a certificate that runs without
    Python. Without a data set for the model, a random image is bounded.

    Examples: `robnet-fx inspect digits.onnx --stage bounds --code`,
    `robnet-fx inspect digits.onnx --eps 40 --image 0 --html digits.html`
    """
    given = {"--image": image is not None, "--html": html is not None, "--onnx": onnx is not None}
    for name in (name for name, asked in given.items() if asked):
        if eps is None:
            raise UsageError(f"{name} needs --eps, the strength of the field")
        if stage is not None or code:
            raise UsageError(f"{name} shows the bounds on an image and goes with neither --stage nor --code")
    share = 0.0 if eps is None else options.read_eps(eps)  # a graph is the same at every eps

    from robnet_fx.bounds import method_named
    from robnet_fx.perturbations.bias_field import BiasField

    method_named(method)
    field, form = BiasField(order, share), options.read_clip(clip)
    reading = options.read_reading(resize, white, test_share, layout)
    opening = options.Opening(model, data, reading, mean, std, output, flat, "cpu")
    if eps is None or stage is not None or code:
        _show_stage(opening, stage or "source", code, field, method, form, json)
    else:
        _show_bounds(opening, image, html, onnx, field, method, clip, json)


def _show_stage(
    opening: options.Opening, stage: str, code: bool, field: Any, method: str, clip: str | None, json: bool
) -> None:
    from dataclasses import asdict

    from robnet_fx.cli.opened import describe_file, normalisation, open_alone, open_subject
    from robnet_fx.cli.output import announce, show
    from robnet_fx.inspect import node_lines, stage_of
    from robnet_fx.problem import Problem
    from robnet_fx.report.console import results, say
    from robnet_fx.report.tables import graph_table

    model = opening.model
    if opening.data is None:
        lone = open_alone(opening)
        canonical, loaded = lone.canonical, lone.model
        announce("inspect", lone.describe(model))
    else:
        subject = open_subject(opening)
        canonical, loaded = subject.canonical, subject.model
        announce("inspect", describe_file(model, loaded, subject.layout, subject.remarks, subject.told))
    constants = normalisation(loaded, opening.mean, opening.std)
    graph = stage_of(canonical, stage, Problem(field, clip, *constants), method)
    lines = node_lines(graph, stage)
    if code and not json:
        say(results(), graph.code.strip())
        return
    nodes = [asdict(line) for line in lines]
    document: dict[str, Any] = {"model": str(model), "stage": stage, "code": graph.code, "nodes": nodes}
    show(document, graph_table(f"{model}: {stage}, {len(lines)} nodes", lines), as_json=json)


def _show_bounds(
    opening: options.Opening,
    image: int | None,
    html: Path | None,
    onnx: Path | None,
    field: Any,
    method: str,
    clip: str,
    json: bool,
) -> None:
    from dataclasses import asdict

    from robnet_fx.cli.one_image import open_specimen
    from robnet_fx.cli.output import announce, show
    from robnet_fx.inspect import survey
    from robnet_fx.report.console import notes, say
    from robnet_fx.report.tables import survey_table

    specimen = open_specimen(opening, image, field, method, options.read_clip(clip))
    announce("inspect", {**specimen.facts, "method": f"{method}, clip {clip}"})
    found = survey(specimen.net, specimen.image)
    files = {}
    if html is not None:
        specimen.write_page(html, found, {"method": f"{method}, clip {clip}"})
        files["html"] = str(html)
        say(notes(), f"wrote {html}")
    if onnx is not None:
        say(notes(), f"wrote {onnx}: {specimen.write_bounds(onnx)}")
        files["onnx"] = str(onnx)
    document = {
        **specimen.document,
        "eps": field.eps,
        "order": field.order,
        "method": method,
        "clip": clip,
        "image": specimen.verdict,
        "files": files,
        "logits": found.logits,
        "nodes": [asdict(node) for node in found.nodes],
    }
    show(document, survey_table(specimen.title, found), as_json=json)
