"""Certificates at several strengths of a perturbation: each box holds the smaller ones, and so do their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.perturbations.base import Box, check_eps
from robnet_fx.verify.certificate import Certificate, Unfinished, certify
from robnet_fx.verify.decision import USUAL, Decision
from robnet_fx.verify.search import Limits

_OF_A_LINE = (
    "eps",
    "box",
    "clean_accuracy",
    "attacked_accuracy",
    "certified_accuracy",
    "one_box_accuracy",
    "unknown",
    "samples",
)
_ROUNDING = 2.0**-48  # of a coefficient: what computing two boxes in float64 can differ by


def curve(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    *,
    limits: Limits = USUAL,
    progress: Progress = SILENT,
    known: Mapping[float, Mapping[int, Decision]] | None = None,
    model_file: Path | str | None = None,
    data_notes: Sequence[str] = (),
) -> list[Certificate]:
    """`certify` over the box of `net` at each eps, plain numbers in [0, 1]; one certificate for each, the smallest
    first.

    The largest box is worked first: what is certified there is certified at every smaller eps ("larger box"), where one
    bound of the whole box is all that is worked of it. A perturbation that turns an image at one eps answers it at
    every larger one that would stay unknown. `limits` are what an image may cost at each eps; `known` has the answers
    of an earlier run by eps. Otherwise as `certify`. `net` has the eps of before afterwards.

    Raises `UsageError` where the boxes are not nested, and `Unfinished` on Ctrl-C.
    """
    strengths, found = rising(eps), list[Certificate]()
    check_nested(net, strengths)
    try:
        for strength in reversed(strengths):
            with at(net, strength):
                found.append(
                    certify(
                        net,
                        images,
                        labels,
                        limits=limits,
                        progress=progress,
                        known=(known or {}).get(strength),
                        around=found[-1].decisions if found else None,
                        model_file=model_file,
                        data_notes=data_notes,
                    )
                )
    except KeyboardInterrupt as stopped:
        found += [stopped.certificate] if isinstance(stopped, Unfinished) else []
        if not found:
            raise
        raise Unfinished(found[-1], _agreed(found[::-1])) from None
    return _agreed(found[::-1])


@contextmanager
def at(net: BoundedModel, eps: float) -> Iterator[None]:
    """The box of `net` at another eps meanwhile."""
    before = net.eps
    net.set_eps(eps)
    try:
        yield
    finally:
        net.set_eps(before)


def rising(eps: Sequence[float]) -> list[float]:
    """The strengths in order, each once. Raises `UsageError` where there is none, or one is out of range."""
    if not eps:
        raise UsageError("a curve needs an eps at least")
    return sorted({check_eps(each) for each in eps})


def check_nested(net: BoundedModel, eps: Sequence[float]) -> None:
    """`UsageError` unless the box at each eps, given in order, is a part of the next one.

    Boxes that do not hold the unperturbed image are not: they move away from it as they grow."""
    boxes = [Box(*net.transform.box_at(each)) for each in eps]
    for (small, inner), (large, outer) in pairwise(zip(eps, boxes, strict=True)):
        beyond = (inner.center - outer.center).abs() + inner.radius - outer.radius
        if bool((beyond > _ROUNDING * (outer.center.abs() + outer.radius)).any()):
            raise UsageError(
                f"the box at eps {small:.4g} is no part of the one at {large:.4g}, so that neither answers the other: "
                "they leave out the unperturbed image\n  remedy   certify each of them by itself"
            )


def _agreed(found: Sequence[Certificate]) -> list[Certificate]:
    """Certificates, the smallest box first, with unknown ones answered by what turns the image in a smaller box."""
    lines = [*found[:1]]
    for larger in found[1:]:
        turned = {number: each for number, each in lines[-1].decisions.items() if each.answer == "falsified"}
        own = {number: each for number, each in larger.decisions.items() if each.answer != "unknown"}
        lines.append(replace(larger, decisions=dict(sorted({**larger.decisions, **turned, **own}.items()))))
    return lines


def document(certificates: Sequence[Certificate], *, leaves: bool = False) -> dict[str, Any]:
    """The record of a curve: what its certificates have in common, and under `curve` what each has of its own."""
    records = [each.document(leaves=leaves) for each in certificates]
    common = {key: value for key, value in records[0].items() if key not in _OF_A_LINE}
    return {**common, "curve": [{key: record[key] for key in _OF_A_LINE} for record in records]}


def lines(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The record at each eps of a curve, the smallest first, as `certify` at this eps has it; of one eps the record."""
    common = {key: value for key, value in document.items() if key != "curve"}
    return [{**common, **line} for line in document.get("curve", [{}])]
