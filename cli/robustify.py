"""`robnet-fx robustify`: the main job, an ONNX file in and a certifiably more robust one out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from robnet_fx.cli import options, texts
from robnet_fx.cli.groups import grouped

if TYPE_CHECKING:
    from robnet_fx.train.settings import Training as Settings


@dataclass(frozen=True)
class Training:
    """How the network is trained."""

    panel: ClassVar[str] = "Training"

    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Robust training in N epochs.", show_default="the paper's schedule, 200"),
    ] = None
    method: options.Method = None
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The robust loss: cc, mtl, exp or small-boxes, of the weakest part of the box, which are meant for "
            "verdicts that split; equation-6, the paper's, of all of it; stable, which needs no bounds, for deep "
            "networks. Parameters follow: cc:cuts=4,share=0.3.",
            show_default="cc:cuts=8, equation-6 for noise in many pixels, stable where bounds say nothing",
        ),
    ] = None
    alpha: Annotated[float, typer.Option(help="Weight of the robust loss.")] = 1.0
    lr: Annotated[float, typer.Option(help="Learning rate of the first robust epochs, with --epochs.")] = 5e-4
    batch_size: Annotated[int, typer.Option(help="Images a training step.")] = 128
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory that a training step, or a verdict, may take, as 8GB or 500MB: large batches are then bounded "
            "in parts.",
            show_default="all that is free",
        ),
    ] = None
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of training steps: float32, tf32 (float32 but for products on a GPU) or bf16 (faster, "
            "less memory). Verdicts are in float64."
        ),
    ] = "tf32"
    compiled: Annotated[
        bool, typer.Option("--compile", help="Have torch.compile fuse the training bounds: a minute first, for GPUs.")
    ] = False
    augment: Annotated[
        bool, typer.Option("--augment", help="Mirror and shift the training images: for photographs.")
    ] = False
    pretrain: Annotated[
        bool, typer.Option("--pretrain", help="Train on the standard loss first: for a model that is not trained yet.")
    ] = False
    training_symbols: Annotated[
        int,
        typer.Option(
            metavar="N", help="Errors that training steps keep of an image: for deep networks, dear elsewhere."
        ),
    ] = 0
    limit: Annotated[int | None, typer.Option(metavar="N", help="Use N training images.", show_default="all")] = None
    test_limit: options.Limit = None
    seed: options.Seed = 0

    def settings(self) -> Settings:
        """As the library takes them."""
        from robnet_fx.train.settings import Training as Settings

        given = {**vars(self), "memory": texts.read_memory(self.memory)}
        return Settings(symbols=given.pop("training_symbols"), **given)

    def describe(self, objective: str) -> str:
        """What the panel says of the loss, which is `objective`, and the schedule."""
        schedule = "the paper's schedule" if self.epochs is None else f"{self.epochs} robust epochs"
        return f"{objective}, alpha {self.alpha:g}, {schedule}, seed {self.seed}"


@grouped
def robustify(
    context: typer.Context,
    perturbation: options.Perturbation,
    model: options.Model,
    images: options.Images,
    training: Training,
    effort: options.Effort,
    symbols: options.Symbols = None,
    device: options.Device = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The result.", show_default="MODEL with .robust.onnx")
    ] = None,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Where the run's own new directory is made.")] = Path(
        "runs"
    ),
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Continue an interrupted run: its directory, the other arguments as before."),
    ] = None,
    json: options.Json = False,
    html: options.Html = None,
) -> None:
    """Train MODEL until bias fields of the given order and strength provably leave its answers alone.

    Writes MODEL with .robust.onnx, its inputs, outputs and shapes unchanged, and a run directory with arguments,
    versions, metrics, checkpoint, certificate, pictures and the code of the generated bounds. The accuracies after
    training are measured on the written file, over test images that neither training nor selection saw. A result that
    is no better (no more is certified; among equals, no more right, nor certified by one box) stays in that directory
    as model.onnx, the first line says so, and the exit code is 1.

    Example: `robnet-fx robustify digits.onnx --order 3 --eps 40`
    """
    wanted, kept = perturbation.read(), texts.read_symbols(symbols)
    settings, limits = training.settings(), effort.limits()

    from dataclasses import asdict

    from robnet_fx.cli import pages
    from robnet_fx.cli.certificates import told
    from robnet_fx.cli.opened import open_judged, usual_method, usual_symbols
    from robnet_fx.cli.output import announce, show
    from robnet_fx.cli.pace import settle_by_network
    from robnet_fx.errors import RobnetError
    from robnet_fx.machine import ranks, threads
    from robnet_fx.machine.files import sha256_of_file
    from robnet_fx.machine.memory import at_most
    from robnet_fx.passes.pipeline import clean
    from robnet_fx.report.console import notes
    from robnet_fx.report.panels import describe_method, with_symbols
    from robnet_fx.report.progress import Bars
    from robnet_fx.report.tables import NO_BETTER, before_and_after
    from robnet_fx.train.objectives import default_objective
    from robnet_fx.train.robustify import robustify_opened
    from robnet_fx.train.written import target_of
    from robnet_fx.verify.record import record
    from robnet_fx.zoo.data import METADATA_KEY

    target = target_of(model.model, out)
    judged = open_judged(model, images, seed=training.seed, device=device)
    opened, method = judged.opened, usual_method(wanted, judged.layout, training.method)
    judged_by = usual_method(wanted, judged.layout)
    problem = opened.problem(wanted, perturbation.form)
    with at_most(settings.memory):
        judged_symbols = usual_symbols(judged, problem, judged_by, kept)
    transform = wanted.build(judged.layout.image)
    objective = training.objective or default_objective(transform)
    shown = describe_method(method, perturbation.form, training.method, transform.dimensions)
    verdicts = f"{with_symbols(judged_by, judged_symbols)}, {told(limits)}"
    lines = {"training": f"{shown}, {training.describe(objective)}", "verdicts": verdicts}
    announce("robustify", judged.describe(wanted) | lines)
    if not threads.settled(opened.device):
        clean_graph = clean(opened.canonical, opened.mean, opened.std)
        settle_by_network(clean_graph, judged.data.x_train, opened.device)
    original = sha256_of_file(model.model)
    with at_most(settings.memory):
        result = robustify_opened(
            opened,
            problem,
            settings,
            out=target,
            runs=runs,
            resume=resume,
            metadata={METADATA_KEY: judged.data.name, **judged.reading.metadata()},
            symbols=judged_symbols,
            limits=limits,
            progress=Bars(notes()),
        )
    before, after = asdict(result.before), asdict(result.after)
    files = {"model": str(result.out), "run": str(result.run)}
    own = {
        "method": result.net.method,
        "symbols": result.net.symbols,
        "judged_by": result.certificate.about["method"],
        "judged_symbols": result.certificate.about["symbols"],
        "training": {**asdict(settings), "method": result.net.method, "objective": result.objective},
        "images": result.images,
        "before": before,
        "after": after,
        "better": result.better,
        "files": files,
        "written_as": result.exported,
        "model_sha256": {"before": original, "after": sha256_of_file(result.out)},
        "command_line": pages.typed(context),
    }
    pictures = pages.pictured(result.judge, result.test, result.certificate.document())
    pages.keep(result.run, own["command_line"], pictures)
    document = record("robustify", opened.document(), result.certificate.about, own)
    title = f"{result.images['test']} test images of {judged.data.name}, eps {wanted.eps * 255:.4g}/255"
    show(document, before_and_after(title, before, after, files, result.better), as_json=json)
    if html is not None and ranks.leader():  # which has written what is read
        pages.write(html, "robustify", [pages.read(result.run)])
    if not result.better:
        raise RobnetError(
            f"{NO_BETTER}: {before['certified']:.1%} certified and {before['clean']:.1%} right before, "
            f"{after['certified']:.1%} and {after['clean']:.1%} after\n"
            f"  {target} is not written; what training gave is {result.out}"
        )
