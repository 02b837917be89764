"""What was found, in a sentence, as a chart and as figures: of one certificate, of a training, or of several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from robnet_fx.report.answers.case import Case, Shares, percent
from robnet_fx.report.answers.charts import Guide, Line, bar_svg, curve_svg, legend
from robnet_fx.report.page.marks import text
from robnet_fx.report.panels import levels
from robnet_fx.report.tables import ACCURACIES

_RUNS = 6  # colours of lines; more lines than that begin anew
LEGEND = {
    "certified": "certified: proved right under the whole box",
    "unknown": "unknown: neither",
    "falsified": "falsified: turned by a known field",
    "wrong": "wrong unperturbed",
}


def headline(cases: Sequence[Case]) -> str:
    """What all of it comes to, in a sentence."""
    if len(cases) > 1:
        best, row = max(((case, row) for case in cases for row in case.rows[-1:]), key=lambda pair: pair[1].certified)
        return (
            f"{len(cases)} certificates compared: the largest share of images proved right is "
            f"{percent(row.certified)}, of {best.name} at eps {levels(row.eps)}/255."
        )
    (case,) = cases
    last, under = case.rows[-1], f"under every {case.noun} of the box"
    if case.before is not None:
        return (
            f"After training {percent(last.certified)} of {case.data} are proved right {under} at eps "
            f"{levels(last.eps)}/255; before, {percent(case.rows[0].certified)} were."
        )
    if len(case.rows) > 1:
        first, *_ = case.rows
        return (
            f"Of {case.data}, {percent(first.certified)} are proved right {under} at eps {levels(first.eps)}/255, "
            f"{percent(last.certified)} at eps {levels(last.eps)}/255."
        )
    return (
        f"{percent(last.certified)} of {case.data} are proved right {under} at eps {levels(last.eps)}/255; "
        f"{percent(last.clean - last.attacked)} are turned by one, {percent(last.unknown)} stay unknown."
    )


def overview_html(cases: Sequence[Case]) -> str:
    """Bars where all was asked at one eps, else lines against eps; and the figures below."""
    rows = [_named(row, case, cases) for case in cases for row in case.rows]
    chart = _bars(rows) if len({row.eps for row in rows}) == 1 else _lines(cases, rows)
    return chart + _numbers(rows)


def _named(row: Shares, case: Case, cases: Sequence[Case]) -> Shares:
    """A row under a name that tells it from those of the other cases."""
    if len(cases) == 1:
        return row
    return row._replace(name=f"{case.name}, {row.name}" if case.before is not None else case.name)


def _bars(rows: Sequence[Shares]) -> str:
    names = [f"<span>{text(row.name)}</span>" if len(rows) > 1 else "" for row in rows]
    bars = "".join(name + bar_svg(parts(row), tall=True) for name, row in zip(names, rows, strict=True))
    return legend(LEGEND) + (f'<div class="rows">{bars}</div>' if len(rows) > 1 else bars + "<p></p>")


def parts(row: Shares) -> dict[str, float]:
    """What the images are, shares that add up to one."""
    return {
        "certified": row.certified,
        "unknown": row.unknown,
        "falsified": row.clean - row.attacked,
        "wrong": 1 - row.clean,
    }


def _lines(cases: Sequence[Case], rows: Sequence[Shares]) -> str:
    """Clean, attacked and certified against eps. Certificates about the same network, images and kind of perturbation
    are points of one line."""
    joined: dict[str, list[Shares]] = {}
    for case in cases:
        for row in case.rows:
            joined.setdefault(_subject(case) + (row.name if case.before is not None else ""), []).append(
                _named(row, case, cases)
            )
    groups = [sorted(group, key=lambda row: row.eps) for group in joined.values()]
    title = "Clean, attacked and certified accuracy against eps"
    said = f"{'; '.join(map(_said, rows))}. The figures are in the table below."
    if len(groups) == 1:
        (group,) = groups
        line = Line("certified", "answers", [(row.eps, row.certified, row.attacked) for row in group])
        guides = [
            Guide("clean", [(row.eps, row.clean) for row in group]),
            Guide("one-box", [(row.eps, row.one_box) for row in group]),
        ]
        names = {
            "guide clean": "clean",
            "edge answers": "attacked",
            "unknown": "unknown, the band between",
            "edge lower answers": "certified",
            "guide one-box": "certified by one box",
        }
        return legend(names) + curve_svg("eps", title, said, [line], guides)
    lines = [
        Line(_common(group), f"run-{i % _RUNS}", [(row.eps, row.certified, row.attacked) for row in group])
        for i, group in enumerate(groups)
    ]
    lead = "Solid: certified. Dashed: attacked. The band between them is unknown."
    return f'<p class="lead">{lead}</p>{legend({line.css: line.name for line in lines})}' + curve_svg(
        "eps", title, said, lines
    )


def _common(group: Sequence[Shares]) -> str:
    return ", ".join(dict.fromkeys(row.name for row in group))


def _subject(case: Case) -> str:
    """What a certificate is about but for the strength."""
    kind: Mapping[str, object] = {key: value for key, value in case.record["perturbation"].items() if key != "eps"}
    about = [case.record.get("model_sha256", {}).get("weights"), case.record.get("data_sha256"), kind]
    return json.dumps(about, sort_keys=True, default=str)


def _said(row: Shares) -> str:
    shares = f"clean {percent(row.clean)}, attacked {percent(row.attacked)}, certified {percent(row.certified)}"
    return f"{row.name} at eps {levels(row.eps)}: {shares}"


def _numbers(rows: Sequence[Shares]) -> str:
    """The figures, a row each; its name where there are several."""
    named = len({row.name for row in rows}) > 1
    shares = [name.partition(" (")[0].removeprefix("certified by ") for name in ACCURACIES.values()]
    head = "".join(f'<th scope="col">{name}</th>' for name in [*([""] if named else []), "eps", *shares])
    lines = []
    for row in rows:
        first, *rest = [*([text(row.name)] if named else []), levels(row.eps)]
        rest += [percent(getattr(row, key)) for key in ACCURACIES]
        lines.append(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>')
    return (
        '<p class="note">Shares of the test images; eps in pixel levels of 255. Attacked: right under every '
        "perturbation that was tried, an upper limit. One box: certified by one bound of the whole box.</p>"
        f'<div class="scroll"><table class="numbers{" named" if named else ""}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
