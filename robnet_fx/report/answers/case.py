"""A certificate as the page reads it: a plain record, at one eps or at several, and what stands beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from robnet_fx.report.panels import describe_fields, levels
from robnet_fx.report.tables import shares
from robnet_fx.verify.curves import lines

Record = Mapping[str, Any]


class Shares(NamedTuple):
    """A row of figures: shares of the images at an eps. Their order is that of the columns."""

    name: str
    eps: float
    clean: float
    attacked: float
    certified: float
    one_box: float
    unknown: float


@dataclass(frozen=True)
class Case:
    """One certificate and its name. `before` has the accuracies before training, `command` is what was typed, and
    `pictures` are drawn triptychs (`triptychs.drawn`) of images at `focus`."""

    name: str
    record: Record
    before: Mapping[str, float] | None = None
    command: str | None = None
    pictures: Sequence[Mapping[str, Any]] = ()

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The record once for each eps, smallest first."""
        return sorted(lines(self.record), key=lambda entry: entry["eps"])

    @property
    def focus(self) -> dict[str, Any]:
        """The entry that is looked at image by image: where the certified share is nearest to half of the clean one."""
        return focus(self.record)

    @property
    def rows(self) -> list[Shares]:
        """The figures at each eps; before training first."""
        eps = self.entries[0]["eps"]
        rows = []
        if self.before is not None:
            before = dict(self.before)  # whose unknown is not written: it is what lies between
            rows.append(Shares("before", eps, **before, unknown=before["attacked"] - before["certified"]))
        name = "after" if rows else self.name
        for entry in self.entries:
            rows.append(Shares(name, entry["eps"], **shares(entry)))
        return rows

    @property
    def images(self) -> int:
        return int(self.record["images"])

    @property
    def data(self) -> str:
        """The images in words: "60 test images of digits"."""
        return f"{self.images} test images" + (f" of {self.record['data']}" if self.record.get("data") else "")

    @property
    def noun(self) -> str:
        """What the perturbation is called: field, noise."""
        return (re.findall(r"[A-Z][a-z]*", self.record["perturbation"]["kind"]) or ["Field"])[-1].lower()

    @property
    def perturbation(self) -> str:
        """The perturbation in words, at all its strengths."""
        fields = dict(self.record["perturbation"])
        (said,) = describe_fields(fields.pop("kind"), {**fields, "eps": self.entries[-1]["eps"]}).values()
        return said if len(self.entries) == 1 else f"{said.partition('eps ')[0]}eps {self.strengths}"

    @property
    def strengths(self) -> str:
        return f"{levels(*(entry['eps'] for entry in self.entries))}/255"

    @property
    def answers(self) -> list[Mapping[str, Any]]:
        """Every sample that has an answer, of all entries."""
        return [sample for entry in self.entries for sample in entry["samples"] if "answer" in sample]

    @property
    def largest(self) -> list[Mapping[str, Any]]:
        """The largest proved and the smallest falsified eps of each image that is right, where they were asked for."""
        for samples in (self.record.get("samples", []), *(entry["samples"] for entry in self.entries)):
            if found := [sample["largest"] for sample in samples if sample["correct"] and sample.get("largest")]:
                return found
        return []


def focus(record: Record) -> dict[str, Any]:
    """See `Case.focus`."""
    return min(lines(record), key=lambda entry: abs(entry["certified_accuracy"] - entry["clean_accuracy"] / 2))


def percent(share: float) -> str:
    """A share as text."""
    return f"{share:.1%}"
