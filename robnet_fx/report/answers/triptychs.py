"""Images beside each other: as it is, under the worst field that it survives, under one that turns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robnet_fx.report.answers.case import Case, percent
from robnet_fx.report.page.marks import number, text
from robnet_fx.report.page.picture import png_uri
from robnet_fx.report.panels import levels
from robnet_fx.verify.triptych import OF_EACH, Triptych, View

_MOST = 64  # coefficients that are listed: of more, as of noise in every pixel, nobody reads them
_DIMMER, _BRIGHTER = (0.18, 0.44, 0.82), (0.86, 0.40, 0.08)  # of the maps; the ramp in answers.css has them too
_EFFECT = {
    "multiplicative": ("times", "each pixel is multiplied by 1 + what is shown"),
    "additive": ("plus", "what is shown is added to each pixel"),
    "change": ("change", "what the perturbation adds to each pixel"),
}


def drawn(found: Sequence[Triptych]) -> list[dict[str, Any]]:
    """The triptychs as plain values for JSON, pictures as `data:` addresses; pictures of 1 or 3 channels and two axes
    alone. All maps of a name have one scale, whose end is `reach`."""
    views = [view for each in found for view in (each.survived, each.falsifying) if view is not None and _flat(view)]
    reach: dict[str, float] = {}
    for name, values in (each for view in views for each in view.maps.items()):
        reach[name] = max(reach.get(name, 0.0), float(values.abs().max()))
    return [
        {
            "sample": dict(each.sample),
            "along": each.along,
            "reach": reach,
            **{name: _drawn(getattr(each, name), reach) for name in ("original", "survived", "falsifying")},
        }
        for each in found
    ]


def _drawn(view: View | None, reach: Mapping[str, float]) -> dict[str, Any] | None:
    if view is None:
        return None
    flat = _flat(view)
    maps = {name: png_uri(_coloured(values, reach[name])) for name, values in view.maps.items()} if flat else {}
    return {
        "predicted": view.predicted,
        "margin": view.margin,
        "coefficients": None if view.coefficients is None else view.coefficients.tolist(),
        "picture": png_uri(view.image) if flat else None,
        "maps": maps,
    }


def _flat(view: View) -> bool:
    """Whether it is a picture: of 1 or 3 channels, and two axes."""
    return view.image.dim() == 3 and len(view.image) in (1, 3)


def _coloured(values: Tensor, reach: float) -> Tensor:
    """`[1, H, W]` as colours with opacity `[4, H, W]`: clear where nothing is done, whatever the page's background."""
    values = values.float() / (reach or 1.0)
    brighter, dimmer = (torch.tensor(colour).reshape(3, 1, 1) for colour in (_BRIGHTER, _DIMMER))
    return torch.cat([torch.where(values > 0, brighter, dimmer), values.abs()])


def triptychs_html(case: Case) -> str:
    """The chosen images, a card each."""
    if not case.pictures:
        return (
            '<p class="lead">Pictures need the images and the network: <code>certify --html</code>, '
            "<code>robustify --html</code> and <code>report</code> of a run's directory have them.</p>"
        )
    eps = levels(case.focus["eps"])
    scales = " ".join(
        f"Maps of <b>{_EFFECT[name][0]}</b>: {_EFFECT[name][1]}, "
        f'<span class="ramp" aria-hidden="true"></span> from −{number(reach)} to +{number(reach)}.'
        for name, reach in case.pictures[0]["reach"].items()
    )
    return (
        f'<p class="lead">At eps {eps}/255; at most {OF_EACH} images of each answer: the falsified of the largest '
        "margin, the certified whose margin is nearest to 0, the unknown of which least is proved. A margin is the "
        f"largest other logit minus the label's: below 0 the label wins. {scales}</p>"
        f'<div class="cards">{"".join(_card(each, case.noun) for each in case.pictures)}</div>'
    )


def _card(each: Mapping[str, Any], noun: str) -> str:
    sample = each["sample"]
    answer = text(sample["answer"])
    panels = [
        _panel("original", each["original"], ""),
        _panel(f"worst {noun} survived", each["survived"], _how_far(each, noun)),
        _panel(f"falsifying {noun}", _as_recorded(each["falsifying"], sample), _why_none(sample)),
    ]
    return (
        f'<article class="card"><h3>image {text(sample["index"])}, label {text(sample["label"])} '
        f'<span class="badge {answer}">{answer}</span></h3><div class="triptych">{"".join(panels)}</div></article>'
    )


def _how_far(each: Mapping[str, Any], noun: str) -> str:
    """What is said of the worst that is survived."""
    if each["survived"] is None:
        return "none is known"
    if each["along"] is not None:
        return f"{percent(each['along'])} of the way to the one beside it"
    if each["sample"]["answer"] == "certified":
        return f"no {noun} of the box exceeds {_margin(each['sample']['margin'])}"
    return "the worst that was found"


def _as_recorded(view: Mapping[str, Any] | None, sample: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The certificate has judged this view already: its margin is the one to show."""
    return None if view is None else {**view, "margin": sample["margin"]}


def _why_none(sample: Mapping[str, Any]) -> str:
    """Why there is nothing that turns an image."""
    if sample["answer"] == "certified":
        return "none: proved for the whole box"
    if sample["answer"] == "unknown":
        return f"none found, none excluded: {percent(sample['proved'])} of the box is proved"
    return ""


def _panel(title: str, view: Mapping[str, Any] | None, note: str) -> str:
    """A picture with the maps of what is done to it, and what the network makes of it; where there is none, why."""
    title = text(title)
    if view is None:
        return f'<figure class="none"><figcaption><b>{title}</b> {text(note)}</figcaption></figure>'
    pictures = _picture(view["picture"], title) + "".join(
        _picture(address, f"{title}, {_EFFECT[name][0]}: {_EFFECT[name][1]}", "map")
        + f"<small>{_EFFECT[name][0]}</small>"
        for name, address in view["maps"].items()
    )
    said = f"taken for {text(view['predicted'])}, margin {_margin(view['margin'])}"
    return (
        f"<figure>{pictures}<figcaption><b>{title}</b> {said}{f'; {text(note)}' if note else ''}"
        f"{_coefficients(view['coefficients'])}</figcaption></figure>"
    )


def _picture(address: str | None, said: str, css: str = "") -> str:
    return "" if address is None else f'<img class="{css}" src="{text(address)}" alt="{text(said)}">'


def _coefficients(values: Sequence[float] | None) -> str:
    if values is None or len(values) > _MOST:
        return ""
    listed = ", ".join(f"{value:.4g}" for value in values)
    return f"<details><summary>its {len(values)} coefficients</summary><code>{listed}</code></details>"


def _margin(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3g}".replace("-", "−")
