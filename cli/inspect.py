"""`robnet-fx inspect`: the graphs between a network and its bounds, and the bounds on an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robnet_fx.cli import options, texts
from robnet_fx.cli.groups import grouped
from robnet_fx.errors import UsageError

if TYPE_CHECKING:
    from robnet_fx.bounds.methods import Symbols
    from robnet_fx.cli.one_image import OneImage
    from robnet_fx.cli.opened import Judged, Lone
    from robnet_fx.problem import Problem


@grouped
def inspect(
    perturbation: options.Perturbation,
    model: options.Model,
    images: options.Images,
    method: options.Method = None,
    symbols: options.Symbols = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="Show a graph: source (as traced), passes (field and clip inserted) or bounds.",
            show_default="source, unless there is an --eps",
        ),
    ] = None,
    code: Annotated[bool, typer.Option("--code", help="Print the graph's Python code instead of a table.")] = False,
    image: Annotated[
        int | None, typer.Option(metavar="N", help="The test image to bound (with --eps).", show_default="0")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=options.target,
            help="Write a page: graph, generated code, widths (with --eps).",
            show_default=False,
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=options.target,
            help="Write the bounds as an ONNX file of their own (with --eps).",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Look inside: MODEL's graph at a stage, as a table or as code; or with --eps (or --noise, --box) the source graph
    against its bounds, how wide they are node by node, and where they blow up.

    The ONNX file of --onnx takes `image`, `spec` and, for another box, `center` and `radius`, and gives `lower` and
    `upper`: a certificate that runs without Python. Without a data set for the model, a random image is bounded.

    Examples: `robnet-fx inspect digits.onnx --stage bounds --code`,
    `robnet-fx inspect digits.onnx --eps 40 --image 0 --html digits.html`
    """
    given = {"--image": image is not None, "--html": html is not None, "--onnx": onnx is not None}
    for name in (name for name, asked in given.items() if asked):
        if not perturbation.given:
            raise UsageError(f"{name} needs --eps, the strength of the field")
        if stage is not None or code:
            raise UsageError(f"{name} shows the bounds on an image and goes with neither --stage nor --code")
    wanted = perturbation.read(needed=False)  # a graph is the same at every strength
    kept = texts.read_symbols(symbols)
    if kept is None and onnx is not None:  # a file's sizes are fixed: only a number of symbols has one
        kept = 0

    from robnet_fx.bounds.methods import check_symbols

    check_symbols(kept or 0, method or "rsip-ssip")
    if perturbation.given and stage is None and not code:
        from robnet_fx.cli.one_image import open_one_image

        one = open_one_image(model, images, image, wanted, perturbation.form, method, kept)
        _show_bounds(one, html, onnx, method, json)
    else:
        from robnet_fx.cli.opened import open_with_or_without_data

        found = open_with_or_without_data(model, images, device="cpu")
        _show_stage(found, found.problem(wanted, perturbation.form), method, kept, stage or "source", code, json)


def _show_stage(
    found: Lone | Judged,
    problem: Problem,
    asked: str | None,
    symbols: Symbols | None,
    stage: str,
    code: bool,
    json: bool,
) -> None:
    from dataclasses import asdict

    from robnet_fx.cli.opened import usual_method, usual_symbols
    from robnet_fx.cli.output import announce, show
    from robnet_fx.inspect import node_lines, stage_of
    from robnet_fx.report.console import results, say
    from robnet_fx.report.tables import graph_table
    from robnet_fx.verify.record import hashes, record

    announce("inspect", found.describe())
    method = usual_method(problem.perturbation, found.layout, asked)
    kept = usual_symbols(found, problem, method, symbols) if stage == "bounds" else 0
    graph = stage_of(found.canonical, stage, problem, method, kept)
    path = found.model.path
    lines = node_lines(graph, stage)
    if code and not json:
        say(results(), graph.code.strip())
        return
    about: dict[str, Any] = {"model": str(path), "stage": stage, "code": graph.code}
    document = record("inspect", about, {"nodes": [asdict(line) for line in lines]}, hashes(file=path))
    show(document, graph_table(f"{path}: {stage}, {len(lines)} nodes", lines), as_json=json)


def _show_bounds(one: OneImage, html: Path | None, onnx: Path | None, asked: str | None, json: bool) -> None:
    from dataclasses import asdict

    from robnet_fx.cli.output import announce, show
    from robnet_fx.inspect import survey
    from robnet_fx.report.console import notes, say
    from robnet_fx.report.panels import describe_method
    from robnet_fx.report.tables import survey_table
    from robnet_fx.verify.record import about_computing, about_problem, hashes, record

    line = {"method": describe_method(one.net.method, one.net.clip, asked, len(one.net.center), one.net.symbols)}
    announce("inspect", {**one.facts, **line})
    found = survey(one.net, one.image)
    files = {}
    if html is not None:
        one.write_page(html, found, line)
        files["html"] = str(html)
        say(notes(), f"wrote {html}")
    if onnx is not None:
        say(notes(), f"wrote {onnx}: {one.write_bounds(onnx)}")
        files["onnx"] = str(onnx)
    own = {
        "method": one.net.method,
        "symbols": one.net.symbols,
        "image": one.verdict,
        "files": files,
        "logits": found.logits,
        "margins": None if found.margins is None else asdict(found.margins),
        "nodes": [asdict(node) for node in found.nodes],
    }
    about = about_problem(one.net), about_computing(one.net), hashes(one.net, one.path)
    show(record("inspect", one.document, *about, own), survey_table(one.title, found), as_json=json)
