"""`robnet-fx certify`: the share of test images that no field of the box can turn."""

from __future__ import annotations

from typing import Annotated

import typer

from robnet_fx.cli import options, texts
from robnet_fx.cli.groups import grouped


@grouped
def certify(
    perturbation: options.Perturbation,
    model: options.Model,
    images: options.Images,
    method: options.Method = None,
    symbols: options.Symbols = None,
    limit: options.Limit = None,
    attack: Annotated[
        bool, typer.Option(help="Measure the upper limit of the certified accuracy too, by gradient ascent.")
    ] = True,
    seed: options.Seed = 0,
    device: options.Device = None,
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Certify MODEL on test images: clean and certified accuracy, and by attack what certificates cannot exceed.

    The verdicts are worked out in float64. The JSON document has one record an image and everything needed to repeat
    them: the hashes of model and data, the box, the method and the arithmetic.

    Example: `robnet-fx certify digits.robust.onnx --order 3 --eps 40 --out certificate.json`
    """
    wanted, kept = perturbation.read(), texts.read_symbols(symbols)

    from robnet_fx.bounds.methods import check_symbols
    from robnet_fx.cli.errors import warn
    from robnet_fx.cli.opened import open_judged
    from robnet_fx.cli.output import announce, show
    from robnet_fx.cli.pace import settle_by_bounds
    from robnet_fx.errors import RobnetError
    from robnet_fx.opening.sanity import doubt
    from robnet_fx.report.console import notes
    from robnet_fx.report.panels import describe_method, with_symbols
    from robnet_fx.report.progress import Bars
    from robnet_fx.report.tables import accuracies
    from robnet_fx.verify import certify as run_certify
    from robnet_fx.verify.attack import attack as run_attack
    from robnet_fx.verify.record import record

    check_symbols(kept or 0, method or "rsip-ssip")
    judged = open_judged(model, images, seed=seed, device=device)
    index, pictures, labels = judged.test_images(limit)
    net = judged.bound(wanted, perturbation.form, method, kept)
    shown = describe_method(net.method, net.clip, method, len(net.center), net.symbols)
    announce("certify", {**judged.describe(wanted), "method": f"{shown}, float64"})
    settle_by_bounds(net, pictures, labels)
    bars = Bars(notes())

    certificate = run_certify(
        net, pictures, labels, progress=bars, model_file=model.model, data_notes=judged.data.notes
    )
    known = certificate.verdicts
    if said := doubt(net, pictures, labels, known.predicted, known.correct, judged.data.name):
        warn(said)
    document = record("certify", judged.opened.document(), certificate.document())
    for number, sample in zip(index.tolist(), document["samples"], strict=True):
        sample["index"] = number
    shares = {"clean": certificate.clean_accuracy, "certified": certificate.certified_accuracy}
    if attack:
        attacked = run_attack(net, pictures, labels, seed=seed, progress=bars)
        contradictions = int((certificate.certified & attacked.adversarial).sum())
        if contradictions:
            raise RobnetError(
                f"{contradictions} images are certified and yet fooled: a bug in robnet-fx, please report it"
            )
        shares["attacked"] = attacked.accuracy
        document = record("certify", document, {"attacked_accuracy": attacked.accuracy})
    what = f"{len(labels)} test images of {judged.data.name}, eps {wanted.eps * 255:.4g}/255"
    title = f"{model.model}: {what}, {with_symbols(net.method, net.symbols)}"
    show(document, accuracies(title, {"share": shares}), as_json=json, out=out)
