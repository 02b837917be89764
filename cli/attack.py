"""`robnet-fx attack`: fields of the box that fool the model, an upper limit on any certified accuracy."""

from __future__ import annotations

from typing import Annotated

import typer

from robnet_fx.cli import options
from robnet_fx.cli.groups import grouped


@grouped
def attack(
    perturbation: options.Perturbation,
    model: options.Model,
    images: options.Images,
    steps: Annotated[int, typer.Option(help="Steps of gradient ascent in the coefficients.")] = 40,
    restarts: Annotated[int, typer.Option(help="Starting points: the centre of the box, then random ones.")] = 4,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Attack MODEL on test images: look for bias fields, or noise, that turn its answers.

    No certified accuracy can exceed what is left. The JSON document has one record an image, with the coefficients of
    the worst field that was found.

    Example: `robnet-fx attack digits.onnx --order 3 --eps 40 --restarts 8`
    """
    wanted = perturbation.read()

    from robnet_fx.cli.opened import open_judged
    from robnet_fx.cli.output import announce, show
    from robnet_fx.cli.pace import settle_by_network
    from robnet_fx.report.console import notes
    from robnet_fx.report.progress import Bars
    from robnet_fx.report.tables import accuracies
    from robnet_fx.verify.attack import attack as run_attack
    from robnet_fx.verify.record import about_computing, about_problem, hashes, record

    judged = open_judged(model, images, seed=seed, device=device)
    index, pictures, labels = judged.test_images(limit)
    announce("attack", {**judged.describe(wanted), "search": f"{steps} steps from each of {restarts} starts"})
    net = judged.bound(wanted, perturbation.form, "ibp")  # the cheapest to generate: none is asked for
    settle_by_network(net.clean, pictures, net.center.device)

    found = run_attack(net, pictures, labels, steps=steps, restarts=restarts, seed=seed, progress=Bars(notes()))
    shares = {"clean": float(found.correct.double().mean()), "attacked": found.accuracy}
    columns = zip(index, labels, found.correct, found.adversarial, found.margin, found.coefficients, strict=True)
    names = ("index", "label", "correct", "fooled", "margin", "coefficients")
    totals = {
        "clean_accuracy": shares["clean"],
        "attacked_accuracy": shares["attacked"],
        "images": len(labels),
        "search": {"steps": steps, "restarts": restarts, "seed": seed},
    }
    about = about_problem(net), about_computing(net), hashes(net, model.model, pictures, labels)
    samples = [dict(zip(names, (value.tolist() for value in row), strict=True)) for row in columns]
    document = record("attack", judged.opened.document(), totals, *about, {"samples": samples})
    title = f"{model.model}: {len(labels)} test images of {judged.data.name}, eps {wanted.eps * 255:.4g}/255"
    show(document, accuracies(title, {"share": shares}), as_json=json, out=out)
