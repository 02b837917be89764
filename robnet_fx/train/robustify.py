"""The main job: a classifier in, the same classifier out, certifiably more robust. A row of stages, each of use alone.

opening/opened.py  open_model   model and images, agreed on a layout
images/sets.py     split        training, validation and test images
verify/score.py    measure      clean, attacked and certified accuracy
train/prepare.py   prepare      the network to train, and the recipe that memory allows
train/loop.py      train        Algorithm 1
train/written.py   write        the ONNX file; `read_back` gives it to `measure`, `publish` puts it in its place
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robnet_fx.bounds.methods import Symbols, default_method
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import Interrupted
from robnet_fx.frontend.outputs import Name
from robnet_fx.images.layout import Layout
from robnet_fx.images.sets import Data, split
from robnet_fx.interchange.program import PROGRAM, program, write_program
from robnet_fx.machine import ranks
from robnet_fx.machine.files import read_json
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.opening.opened import Opened, open_model
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.problem import Problem
from robnet_fx.train import run_folder as folders
from robnet_fx.train.history import History
from robnet_fx.train.loop import train
from robnet_fx.train.objectives import objective_named
from robnet_fx.train.prepare import prepare
from robnet_fx.train.settings import Training
from robnet_fx.train.written import publish, read_back, target_of, write
from robnet_fx.verify.certificate import Certificate
from robnet_fx.verify.decision import USUAL
from robnet_fx.verify.record import about_problem, versions
from robnet_fx.verify.replay import differences
from robnet_fx.verify.score import Score, measure
from robnet_fx.verify.search import Limits


@dataclass(frozen=True)
class RobustifyResult:
    """`before` and `after` are measured on test images that neither training nor selection saw; `after` on `out`.

    `better`: whether `after` is better than `before` (`Score.better_than`). If so `out` is the file that was asked for,
    else `model.onnx` in the run's directory, which is there in any case.
    `net` is the trained network with the bounds it was trained on, `objective` the name of the loss, `exported` how it
    was written (`write_onnx`), `images` the size of each part of the data, `run` the run's directory. `judge` is the
    written file with the bounds of the certificate, `test` its images `[N, C, *spatial]`.
    """

    before: Score
    after: Score
    better: bool
    out: Path
    run: Path
    history: History
    certificate: Certificate
    net: BoundedModel
    objective: str
    exported: str
    images: dict[str, int]
    judge: BoundedModel
    test: Tensor


def robustify(
    model: nn.Module | Path | str,
    data: Data,
    problem: Problem | Perturbation,
    training: Training = Training(),  # noqa: B008  (frozen)
    *,
    layout: str | Layout | None = None,
    flat: str | None = None,
    output: Name = None,
    device: str | None = None,
    out: Path | str | None = None,
    runs: Path | str = "runs",
    resume: Path | str | None = None,
    metadata: Mapping[str, str] | None = None,
    symbols: Symbols = 0,
    limits: Limits = USUAL,
    progress: Progress = SILENT,
) -> RobustifyResult:
    """Train `model` (an ONNX file, or a module in place) against `problem` and write it as ONNX to `out`.

    problem: a perturbation, `BiasField(3, 40 / 255)`, or a `Problem` with its clip and normalisation. A module in half
    precision is not trained itself but a float32 copy, the result's `net.model`. layout, flat, output, device: see
    `open_model`. The model is measured first, and refused at chance level unless it is pretrained. What is chosen on
    the way is chosen on up to 1000 validation images: those of `data` (`x_val`, `y_val`), else a tenth of the training
    images. What is measured before and after is in float64, knows nothing of the training's precision, and keeps
    `symbols` errors of an image, as `bound` does; `limits` is what each may cost, as for `certify`.
    `out` defaults to `<model>.robust.onnx` beside the model. A new directory under `runs` takes arguments, versions,
    metrics, checkpoint, certificate and the bounds graph as a program with its weights (`interchange.program`);
    `resume` names such a directory whose run was interrupted, to go on with it under the same arguments; what was
    measured before training is taken from there where it was about the same.
    The written file, whose properties remember the normalisation and `metadata`, is read back, certified and attacked.
    One that is no better than what came in (`Score.better_than`) stays in the run's directory; `out` is not touched.
    Raises `UsageError`, `UnsupportedError`, `Interrupted`, and `RobnetError` of a loss that explodes.
    """
    problem = problem if isinstance(problem, Problem) else Problem(problem)
    target = target_of(model, out)
    if resume is not None:
        folders.reopen(Path(resume))
    opened = open_model(
        model, data, mean=problem.mean, std=problem.std, layout=layout, flat=flat, output=output, device=device
    )
    if opened.told:
        progress.remark(opened.told)
    return robustify_opened(
        opened,
        problem,
        training,
        out=target,
        runs=runs,
        resume=resume,
        metadata=metadata,
        symbols=symbols,
        limits=limits,
        progress=progress,
    )


def robustify_opened(
    opened: Opened,
    problem: Problem,
    training: Training,
    *,
    out: Path | str | None = None,
    runs: Path | str = "runs",
    resume: Path | str | None = None,
    metadata: Mapping[str, str] | None = None,
    symbols: Symbols = 0,
    limits: Limits = USUAL,
    progress: Progress = SILENT,
) -> RobustifyResult:
    """`robustify` of what was opened, with the normalisation that it was opened with."""
    target = target_of(opened.path or opened.model, out)
    folder = None if resume is None else folders.reopen(Path(resume))
    transform = problem.perturbation.build(opened.layout.image)
    judged_by = default_method(transform)  # the paper's, whatever is trained with
    method = training.method or judged_by
    parts = split(opened.data, training.limit, training.test_limit, training.seed, opened.axes)
    net, recipe, loss = prepare(opened, problem, training, method, training.objective, parts, progress)

    judge = opened.bound(problem, judged_by, symbols)
    first = _before(folder, judge, parts.test, limits, progress)
    before = Score(**first["before"])
    counts = {name: len(labels) for name, (_, labels) in parts._asdict().items()}
    if folder is None:
        folder = folders.create(Path(runs), target.name.removesuffix(".onnx"))
        asked = {"device": opened.device, "out": target, "runs": runs, "resume": resume, "metadata": metadata}
        arguments = {
            **opened.document(),
            **asdict(problem.perturbation),  # type: ignore[call-overload]
            **about_problem(net),
            **problem.normalisation,
            **asdict(training),
            **asked,
            "method": method,
            "objective": loss,
            "judged_symbols": symbols,
            "limits": asdict(limits),
            "flat": opened.layout.order,
            "output": opened.output if opened.path is None else opened.asked,
            "recipe": recipe.to_dict(),
            "images": counts,
            "versions": versions(),
        }
        folders.write_json(folder / "arguments.json", arguments)
        folders.write_text(folder / PROGRAM, program(net))
        folders.write_json(folder / folders.METRICS, first)

    checkpoint = folder / folders.CHECKPOINT
    history = train(
        net,
        *parts.train,
        recipe,
        objective=objective_named(loss),
        validation=parts.validation,
        checkpoint=checkpoint,
        resume=resume is not None,
        progress=progress,
    )
    kept = folder / folders.MODEL
    try:
        exported = write(opened, net, kept, metadata)
        written = read_back(opened, kept, problem, judged_by, symbols)
        notes: list[str] = opened.document()["data_notes"]
        after, certificate = measure(
            written, parts.test, limits=limits, progress=progress, model_file=kept, data_notes=notes
        )
    except KeyboardInterrupt:
        raise Interrupted(f"stopped after training; {checkpoint} continues the run", checkpoint) from None
    ranks.by_leader(lambda: write_program(net, folder))  # now with the weights that were trained
    folders.write_text(folder / "certificate.json", certificate.to_json())
    better = after.better_than(before)
    metrics: dict[str, Any] = {**first, "after": asdict(after), "better": better}
    folders.write_json(folder / folders.METRICS, {**metrics, "selected": history.selected, "epochs": history.epochs})
    if better:
        publish(kept, target)
    out, (test, _) = target if better else kept, parts.test
    return RobustifyResult(
        before, after, better, out, folder, history, certificate, net, loss, exported, counts, written, test
    )


def _before(
    folder: Path | None, judge: BoundedModel, test: tuple[Tensor, Tensor], limits: Limits, progress: Progress
) -> dict[str, Any]:
    """`before`, what the network is before training, and `judged`, what that is about, as the metrics have them; an
    interrupted run knows them already, if they are about the same."""
    known = read_json(folder / folders.METRICS) if folder else None
    judged = (known or {}).get("judged", {})
    if known and judged.get("limits") == asdict(limits) and not differences(judged, judge, *test):
        return {"judged": judged, "before": known["before"]}
    before, certificate = measure(judge, test, limits=limits, progress=progress)
    return {"judged": certificate.about, "before": asdict(before)}
