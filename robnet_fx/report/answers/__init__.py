"""One self-contained page about certificates: what was found, images to look at, how, and from what. It loads nothing.

Everything on it is from the records (docs/record.md) and from pictures that were drawn beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robnet_fx.report.answers.case import Case
from robnet_fx.report.answers.charts import HATCH
from robnet_fx.report.answers.overview import headline, overview_html
from robnet_fx.report.answers.provenance import command_html, provenance_html
from robnet_fx.report.answers.triptychs import triptychs_html
from robnet_fx.report.answers.work import classes_html, largest_html, ways_html
from robnet_fx.report.page.frame import asset, framed
from robnet_fx.report.page.marks import text


def answers_page(command: str, cases: Sequence[Case]) -> str:
    """The page as HTML. command: which one makes it; cases: at least one certificate."""
    said = headline(cases)
    several = len(cases) > 1
    links = "".join(f'<a href="#run-{i}">{text(case.name)}</a>' for i, case in enumerate(cases))
    body = f"""{HATCH}
<header>
<div class="head">
<p class="brand">robnet-fx {text(command)}</p>
<h1>{text(said)}</h1>
{f'<nav aria-label="Certificates">{links}</nav>' if several else _facts(cases[0])}
</div>
</header>
<main>
{_section("overview", "Clean, attacked, certified", overview_html(cases))}
{"".join(_one(case, f"run-{i}", several) for i, case in enumerate(cases))}
</main>
<footer><p>Certified: no perturbation of the box turns the image, proved in float64. Falsified: one that does is known.
Unknown: neither within what an image may cost. Perturbations outside the box are not covered.</p></footer>"""
    return framed(f"{said} · robnet-fx", body, [asset(__name__, "answers.css")])


def _one(case: Case, key: str, several: bool) -> str:
    about = ", ".join(filter(None, (case.record.get("model"), case.data, case.perturbation)))
    head = f'<h2 class="run" id="{key}">{text(case.name)}</h2><p class="lead">{text(about)}</p>' if several else ""
    return head + "".join(_section(f"{key}-{name}", title, inner) for name, title, inner in _sections(case, key))


def _sections(case: Case, key: str) -> Iterator[tuple[str, str, str]]:
    """Names, titles and insides."""
    yield "images", f"What the {case.noun} does to images", triptychs_html(case)
    if case.largest:
        yield "largest", "How much each image takes", largest_html(case, f"{key}-largest")
    yield "ways", "How answers were reached", ways_html(case, key)
    yield "classes", "Class by class", classes_html(case)
    yield "provenance", "Where it comes from", provenance_html(case)
    yield "command", "The command", command_html(case)


def _section(key: str, title: str, inner: str) -> str:
    return f'<section aria-labelledby="h-{key}">\n<h2 id="h-{key}">{text(title)}</h2>\n{inner}\n</section>\n'


def _facts(case: Case) -> str:
    facts = {"model": case.record.get("model"), "data": case.data, case.noun: case.perturbation}
    shown = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items() if value)
    return f"<dl>{shown}</dl>"
