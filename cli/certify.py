"""`robnet-fx certify`: which test images no field of the box can turn, which a field turns, and which stay unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robnet_fx.cli import options, texts
from robnet_fx.cli.groups import grouped


@grouped
def certify(
    context: typer.Context,
    perturbation: options.Perturbation,
    model: options.Model,
    images: options.Images,
    effort: options.Effort,
    method: options.Method = None,
    symbols: options.Symbols = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    leaves: Annotated[
        bool, typer.Option("--leaves", help="Write each proof too, the parts of the box that it bounds: for --replay.")
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check a certificate that was written with --leaves, instead."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Go on from a certificate that Ctrl-C or a small budget left unfinished."),
    ] = None,
    save_images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each falsified image as the field that turns it leaves it, as PNG."),
    ] = None,
    vnnlib: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write each image's perturbed network, coefficients to logits, and its property for other verifiers.",
        ),
    ] = None,
    json: options.Json = False,
    out: options.Out = None,
    html: options.Html = None,
) -> None:
    """Give every test image of MODEL one of three answers: certified, falsified by a field, or unknown.

    One bound of the whole box comes first, then an attack, then parts of the box. Proofs and counterexamples are in
    float64. The JSON document has one record an image and everything needed to repeat them: the hashes of model and
    data, the box, the method and the arithmetic.

    Example: `robnet-fx certify digits.robust.onnx --order 3 --eps 40 --out certificate.json`
    """
    wanted, kept, limits = perturbation.read(), texts.read_symbols(symbols), effort.limits()

    from robnet_fx.bounds.methods import check_symbols
    from robnet_fx.cli import certificates, pages
    from robnet_fx.cli.errors import warn
    from robnet_fx.cli.opened import open_judged
    from robnet_fx.cli.output import announce, show
    from robnet_fx.cli.pace import settle_by_bounds
    from robnet_fx.errors import Interrupted
    from robnet_fx.opening.sanity import doubt
    from robnet_fx.report.console import notes
    from robnet_fx.report.panels import describe_method, with_symbols
    from robnet_fx.report.progress import Bars
    from robnet_fx.report.tables import accuracies
    from robnet_fx.verify.certificate import Unfinished
    from robnet_fx.verify.certificate import certify as run_certify
    from robnet_fx.verify.replay import known
    from robnet_fx.verify.replay import replay as run_replay

    check_symbols(kept or 0, method or "rsip-ssip")
    before = None if resume is None else certificates.read(resume)
    again = None if replay is None else certificates.read(replay)
    judged = open_judged(model, images, seed=seed, device=device)
    index, pictures, labels = judged.test_images(limit)
    net = judged.bound(wanted, perturbation.form, method, kept)
    shown = describe_method(net.method, net.clip, method, len(net.center), net.symbols)
    announce("certify", {**judged.describe(wanted), "method": f"{shown}, float64", "effort": certificates.told(limits)})
    settle_by_bounds(net, pictures, labels)
    bars = Bars(notes())
    if again is not None:
        certificates.replayed(run_replay(again, net, pictures, labels, bars), again, as_json=json)
        return

    if vnnlib is not None:
        certificates.save_instances(vnnlib, net, pictures, labels, index)
    done = {} if before is None else known(before, net, pictures, labels)
    stopped = False
    try:
        found = run_certify(
            net,
            pictures,
            labels,
            limits=limits,
            progress=bars,
            known=done,
            model_file=model.model,
            data_notes=judged.data.notes,
        )
    except Unfinished as unfinished:
        found, stopped = unfinished.certificate, True
    if said := doubt(net, pictures, labels, found.predicted, found.correct, judged.data.name):
        warn(said)
    document = certificates.document(
        {**judged.opened.document(), "command_line": pages.typed(context)}, found, index, leaves=leaves
    )
    if save_images is not None:
        certificates.save_images(save_images, net, pictures, found, index)
    what = f"{len(labels)} test images of {judged.data.name}, eps {wanted.eps * 255:.4g}/255"
    title = f"{model.model}: {what}, {with_symbols(net.method, net.symbols)}"
    show(document, accuracies(title, {"share": certificates.shares(document)}), as_json=json, out=out)
    if html is not None:
        pages.write(html, "certify", [pages.case(document, pages.pictured(net, pictures, document))])
    if stopped:
        left = int(found.correct.sum()) - len(found.decisions)
        remedy = f"the same command with --resume {out}" if out else "give --out FILE to keep what is known"
        raise Interrupted(f"stopped with {left} images unanswered\n  resume  {remedy}")
