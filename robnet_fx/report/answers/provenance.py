"""Where a certificate comes from: everything that repeats it, from the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from robnet_fx.report.answers.case import Case
from robnet_fx.report.page.marks import number, text
from robnet_fx.report.panels import with_symbols

_INTERVALS = 4  # that are written out


def provenance_html(case: Case) -> str:
    """Names and values."""
    record, versions = case.record, case.record["versions"]
    hashes = record.get("model_sha256", {})
    normalisation = record.get("normalisation") or {}
    facts: dict[str, Any] = {
        "model": record.get("model"),
        "data": "; ".join(filter(None, [record.get("data"), *record.get("data_notes", [])])),
        "layout": record.get("layout_told") or record.get("layout"),
        case.noun: case.perturbation,
        "box": _box(case.entries[-1]["box"]),
        "clip": record.get("clip") or "none",
        "normalisation": _numbers(normalisation),
        "bounds": f"{with_symbols(record['method'], record['symbols'])}, {record['dtype']}, {record['device']}",
        "an image": _limits(record.get("limits") or {}),
        **record.get("remarks", {}),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    digests = {
        "file": hashes.get("file"),
        "weights": hashes.get("weights"),
        "test images": record.get("data_sha256"),
    }
    plain = "".join(_fact(name, value) for name, value in facts.items() if value)
    return f'<dl class="facts">{plain}{"".join(_hash(name, value) for name, value in digests.items() if value)}</dl>'


def command_html(case: Case) -> str:
    """The command that was typed, where it is known."""
    if case.command is None:
        return '<p class="lead">The record does not say which command wrote it.</p>'
    return f"<pre><code>{text(case.command)}</code></pre>"


def _fact(name: str, value: object) -> str:
    return f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"


def _hash(name: str, value: object) -> str:
    return f'<div><dt>SHA-256 of {text(name)}</dt><dd class="hash">{text(value)}</dd></div>'


def _box(box: Mapping[str, Sequence[float]]) -> str:
    """The intervals of the coefficients, equal ones counted."""
    ends = zip(box["center"], box["radius"], strict=True)
    counts = Counter((center - radius, center + radius) for center, radius in ends)
    said = [f"{count} in [{lower:.4g}, {upper:.4g}]" for (lower, upper), count in counts.items()]
    more = [f"{len(said) - _INTERVALS} other intervals"] if len(said) > _INTERVALS else []
    return f"D = {len(box['center'])}: {', '.join(said[:_INTERVALS] + more)}"


def _numbers(normalisation: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in normalisation.items() if value is not None) or "none"


def _limits(limits: Mapping[str, float | None]) -> str:
    said = [f"{number(value)} {name}" for name, value in limits.items() if value is not None]
    return f"at most {' and '.join(said)}" if said else "no limit"
