"""`robnet-fx certify`: which test images no field of the box can turn, which a field turns, and which stay unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robnet_fx.cli import options, texts
from robnet_fx.cli.groups import grouped
from robnet_fx.errors import UsageError


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
    largest: Annotated[
        bool, typer.Option("--largest", help="Bisect each image's largest proved and smallest falsified eps too.")
    ] = False,
    memory: options.Memory = None,
    json: options.Json = False,
    out: options.Out = None,
    html: options.Html = None,
) -> None:
    """Give every test image of MODEL one of three answers: certified, falsified by a field, or unknown.

    One bound of the whole box comes first, then an attack, then parts of the box. Proofs and counterexamples are in
    float64. The JSON document has one record an image and everything needed to repeat them: the hashes of model and
    data, the box, the method and the arithmetic. Of several strengths (--eps 5,10,20,40) each has its answers.

    Example: `robnet-fx certify digits.robust.onnx --order 3 --eps 40 --out certificate.json`
    """
    wanted, strengths = perturbation.read_several()
    kept, limits, allowed = texts.read_symbols(symbols), effort.limits(), texts.read_memory(memory)
    if largest and strengths:
        raise UsageError("--largest looks at every strength up to one: give it the largest of them alone")
    if largest and replay is not None:
        raise UsageError("--replay checks proofs, and --largest writes none: leave one of them out")

    from robnet_fx.bounds.methods import check_symbols
    from robnet_fx.cli import certificates, pages
    from robnet_fx.cli.errors import warn
    from robnet_fx.cli.opened import open_judged
    from robnet_fx.cli.output import announce, show
    from robnet_fx.cli.pace import settle_by_bounds
    from robnet_fx.errors import Interrupted
    from robnet_fx.machine.memory import at_most
    from robnet_fx.opening.sanity import doubt
    from robnet_fx.report.console import notes
    from robnet_fx.report.panels import describe_method, levels, with_symbols
    from robnet_fx.report.progress import Bars
    from robnet_fx.verify.bisection import largest as bisect
    from robnet_fx.verify.certificate import Certificate, Unfinished
    from robnet_fx.verify.curves import curve
    from robnet_fx.verify.replay import known_at, replay_at

    check_symbols(kept or 0, method or "rsip-ssip")
    before = None if resume is None else certificates.read(resume)
    again = None if replay is None else certificates.read(replay)
    judged = open_judged(model, images, seed=seed, device=device)
    index, pictures, labels = judged.test_images(limit)
    found, stopped, reach = list[Certificate](), False, None
    with at_most(allowed):
        net = judged.bound(wanted, perturbation.form, method, kept)
        shown = describe_method(net.method, net.clip, method, len(net.center), net.symbols)
        lines = {"method": f"{shown}, float64", "effort": certificates.told(limits)}
        several = {"strengths": f"{levels(*strengths)} pixel levels"} if strengths else {}
        announce("certify", {**judged.describe(wanted), **several, **lines})
        settle_by_bounds(net, pictures, labels)
        bars, eps = Bars(notes()), strengths or [net.eps]
        if again is not None:
            certificates.replayed(replay_at(again, net, pictures, labels, eps, bars), again, as_json=json)
            return
        if vnnlib is not None:
            certificates.save_instances(vnnlib, net, pictures, labels, index, strengths)
        done = {} if before is None else known_at(before, net, pictures, labels, eps)
        try:
            found = curve(
                net,
                pictures,
                labels,
                eps,
                limits=limits,
                progress=bars,
                known=done,
                model_file=model.model,
                data_notes=judged.data.notes,
            )
            if largest:
                reach = bisect(net, pictures, labels, limits=limits, progress=bars, known=found[0].decisions)
        except KeyboardInterrupt as interrupt:
            found, stopped = interrupt.curve if isinstance(interrupt, Unfinished) else found, True
            if not found:
                raise
    if said := doubt(net, pictures, labels, found[0].predicted, found[0].correct, judged.data.name):
        warn(said)
    opened = {**judged.opened.document(), "command_line": pages.typed(context)}
    document = certificates.document(opened, found, index, bool(strengths), reach, leaves=leaves)
    if save_images is not None:
        certificates.save_images(save_images, net, pictures, found, index, bool(strengths))
    what = f"{len(labels)} test images of {judged.data.name}, eps {levels(*eps)}/255"
    title = f"{model.model}: {what}, {with_symbols(net.method, net.symbols)}"
    show(document, certificates.tables(title, document, reach), as_json=json, out=out)
    if html is not None:
        pages.write(html, "certify", [pages.case(document, pages.pictured(net, pictures, document))])
    if stopped:
        left = len(eps) * int(found[0].correct.sum()) - sum(len(each.decisions) for each in found)
        what = f"{left} answers missing" if left else "the bisection of --largest unfinished"
        remedy = f"the same command with --resume {out}" if out else "give --out FILE to keep what is known"
        raise Interrupted(f"stopped with {what}\n  resume  {remedy}")
