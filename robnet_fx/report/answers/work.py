"""How answers were reached, how much drift each image takes, and what became of each class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from robnet_fx.report.answers.case import Case, percent
from robnet_fx.report.answers.charts import ANSWERS, Line, bar_svg, curve_svg, histogram_svg, legend
from robnet_fx.report.page.marks import number, text
from robnet_fx.report.panels import levels

Sample = Mapping[str, Any]

_WAYS = {
    ("certified", "one box"): "certified by one bound of the whole box",
    ("certified", "symbols"): "certified by one bound, errors kept as symbols",
    ("certified", "split"): "certified in parts of the box",
    ("certified", "larger box"): "certified by the proof of a larger eps",
    ("falsified", "attack"): "falsified by an attack",
    ("falsified", "corner"): "falsified at a point that splitting led to",
    ("unknown", "time"): "unknown: the time was up",
    ("unknown", "boxes"): "unknown: the boxes were used up",
    ("unknown", "precision"): "unknown: parts that floating point cannot halve",
    ("unknown", "one box"): "unknown: the method has one bound and no parts",
}


def ways_html(case: Case, key: str) -> str:
    """What gave the answers, at each eps; boxes and seconds in all, and how they are distributed."""
    entries, answers = case.entries, case.answers
    columns = [[sample for sample in entry["samples"] if "answer" in sample] for entry in entries]
    heads = "".join(f'<th scope="col">eps {levels(entry["eps"])}</th>' for entry in entries)
    counts = [Counter((sample["answer"], sample["how"]) for sample in column) for column in columns]
    found = {way for count in counts for way in count}
    ways = [way for way in _WAYS if way in found] + sorted(found - _WAYS.keys())
    rows = [_row(_WAYS.get(way, ": ".join(way)), [str(count[way]) for count in counts]) for way in ways]
    wrong = [sum(not sample["correct"] for sample in entry["samples"]) for entry in entries]
    rows.append(_row("wrong unperturbed, nothing to ask", map(str, wrong)))
    left = [sum(sample["correct"] and "answer" not in sample for sample in entry["samples"]) for entry in entries]
    if any(left):
        rows.append(_row("not reached before the run was stopped", map(str, left)))
    for what in ("boxes", "seconds"):
        values = [[sample[what] for sample in column] for column in columns]
        rows.append(_row(f"{what} in all", [number(sum(each)) for each in values]))
        rows.append(_row(f"{what} an image, median", [number(median(each)) if each else "–" for each in values]))
        rows.append(_row(f"{what} an image, most", [number(max(each)) if each else "–" for each in values]))
    table = (
        f'<div class="scroll"><table class="numbers narrow"><thead><tr><th scope="col">images</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    if not answers:
        return table
    shown = {answer: answer for answer in ANSWERS if any(sample["answer"] == answer for sample in answers)}
    whole = ", all eps together" if len(entries) > 1 else ""
    pictures = "".join(
        f'<figure class="histogram"><figcaption>{name} an image{whole}</figcaption>'
        f"{histogram_svg(f'{key}-{what}', f'Images by {name}', _bins(answers, what))}</figure>"
        for what, name in (("boxes", "boxes"), ("seconds", "seconds"))
    )
    return f'{table}<div class="histograms">{pictures}</div>{legend(shown)}'


def _row(name: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{text(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _bins(samples: Sequence[Sample], what: str) -> list[tuple[str, dict[str, int]]]:
    """Samples by powers of two of boxes, or by steps of about three of seconds, each by its lower end."""
    places: dict[int, Counter[str]] = {}
    for sample in samples:
        value = sample[what]
        if what == "boxes":
            place = math.floor(math.log2(max(value, 1)))
        else:
            place = math.floor(2 * math.log10(max(value, 1e-3)) + 1e-9)
        places.setdefault(place, Counter())[sample["answer"]] += 1
    return [(_bin(place, what), dict(places.get(place, {}))) for place in range(min(places), max(places) + 1)]


def _bin(place: int, what: str) -> str:
    if what == "boxes":
        return f"{2**place}–" if place else "1"
    return f"{10 ** (place / 2):.1g}–"


def largest_html(case: Case, key: str) -> str:
    """The share of the images that is still proved, and that no known perturbation turns, against eps up to the one
    that was asked for: how much of it each image takes."""
    images, right, most = case.images, len(case.largest), case.entries[-1]["eps"]
    proved = sorted(each["proved"] or 0.0 for each in case.largest)
    turned = sorted(math.inf if each["falsified"] is None else each["falsified"] for each in case.largest)
    points = [(0.0, right / images, right / images)]
    for eps in sorted({0.0, *proved, *turned, most} - {math.inf}):
        before = sum(value >= eps for value in proved), sum(value >= eps for value in turned)
        after = sum(value > eps for value in proved), sum(value > eps for value in turned)
        after = (before[0], after[1]) if eps == most else after  # nothing was asked beyond
        points += [(eps, lower / images, upper / images) for lower, upper in (before, after)]
    said, title = _half(proved, turned, most), "Images still proved, and still right, against eps"
    chart = curve_svg(key, title, said, [Line("", "answers", points)])
    names = {
        "edge lower answers": "still proved",
        "unknown": "unknown",
        "edge answers": "not turned by a known perturbation",
    }
    return f'<p class="lead">{said}</p>{legend(names)}{chart}'


def _half(proved: Sequence[float], turned: Sequence[float], most: float) -> str:
    """Where half of the images that are right are still proved, and where half are turned."""
    half, late = proved[len(proved) // 2], turned[(len(turned) - 1) // 2]
    said = f"Asked up to eps {levels(most)}/255: half of the images that are right are proved up to {levels(half)}"
    if math.isinf(late):
        return f"{said}, and fewer than half are turned by a perturbation that is known."
    return f"{said}, and half are turned at {levels(late)} or before."


def classes_html(case: Case) -> str:
    """A bar a class, at the eps that is looked at."""
    entry = case.focus
    groups: dict[int, list[Sample]] = {}
    for sample in entry["samples"]:
        groups.setdefault(sample["label"], []).append(sample)
    rows = "".join(_class(label, own) for label, own in sorted(groups.items()))
    lead = f"At eps {levels(entry['eps'])}/255." if len(case.entries) > 1 else ""
    heads = ("class", "images", "", "clean", "certified", "unknown")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<p class="lead">{lead}</p><div class="scroll"><table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _class(label: int, own: Sequence[Sample]) -> str:
    def share(answer: str) -> float:
        return sum(sample.get("answer") == answer for sample in own) / len(own)

    clean = sum(sample["correct"] for sample in own) / len(own)
    certified, falsified = share("certified"), share("falsified")
    unknown = clean - certified - falsified
    bar = bar_svg({"certified": certified, "unknown": unknown, "falsified": falsified, "wrong": 1 - clean})
    figures = "".join(f"<td>{percent(max(value, 0.0))}</td>" for value in (clean, certified, unknown))
    return f'<tr><th scope="row">{label}</th><td>{len(own)}</td><td class="wide">{bar}</td>{figures}</tr>'
