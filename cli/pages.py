"""Pages about certificates: made of what a command has at hand, or of what a run's directory and files hold."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.cli import certificates
from robnet_fx.errors import UsageError
from robnet_fx.machine import ranks
from robnet_fx.machine.files import write_atomically
from robnet_fx.report.answers import answers_page
from robnet_fx.report.answers.case import Case, focus
from robnet_fx.report.answers.triptychs import drawn
from robnet_fx.report.console import notes, say
from robnet_fx.verify.record import SCHEMA, VERSION
from robnet_fx.verify.triptych import triptychs

PICTURES = "page.json"
"""In a run's directory what its page shows and the certificate does not have: the command and the pictures."""

_REMEDY = "\n  remedy  give run directories of robustify, or files that certify --out wrote"


def write(path: Path, command: str, cases: Sequence[Case]) -> None:
    """The page, whole or not at all, by the leading process."""
    if ranks.leader():
        text = answers_page(command, cases)
        with write_atomically(path) as file:
            file.write(text.encode())
    say(notes(), f"wrote {path}")


def pictured(net: BoundedModel, images: Tensor, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The drawn triptychs of a certificate, whose images in its order are `images [N, *S]`."""
    return drawn(triptychs(net, images, focus(record))) if ranks.leader() else []


def keep(folder: Path, command: str, pictures: Sequence[Mapping[str, Any]]) -> None:
    """Leave in a run's directory what `read` needs for its page."""
    if ranks.leader():
        with write_atomically(folder / PICTURES) as file:
            file.write(json.dumps({"command_line": command, "pictures": pictures}).encode() + b"\n")


def case(record: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]] = ()) -> Case:
    """A certificate by itself, under its model's path."""
    return Case(record["model"], record, command=record.get("command_line"), pictures=pictures)


def read(path: Path) -> Case:
    """A run's directory, or a certificate's file. Raises `UsageError` for anything else."""
    try:
        found = _of_run(path) if path.is_dir() else _of_file(path)
        answers_page("report", [found])  # what cannot be shown alone is refused by its name
    except UsageError as error:
        raise UsageError(f"{error}{_REMEDY}") from None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is damaged: {type(error).__name__} {error}{_REMEDY}") from error
    return found


def _of_file(path: Path) -> Case:
    record = _certificate(path)
    return Case(str(path), record, command=record.get("command_line"))


def _of_run(folder: Path) -> Case:
    if not (folder / "certificate.json").is_file():
        raise UsageError(f"there is no certificate.json in {folder}: no run has ended there")
    record = _certificate(folder / "certificate.json")
    metrics, arguments, own = (
        certificates.read(folder / name) if (folder / name).is_file() else {}
        for name in ("metrics.json", "arguments.json", PICTURES)
    )
    known = {key: arguments[key] for key in ("model", "data", "layout", "layout_told") if key in arguments}
    return Case(str(folder), known | record, metrics.get("before"), own.get("command_line"), own.get("pictures", []))


def _certificate(path: Path) -> dict[str, Any]:
    record = certificates.read(path)
    whose = (record.get("schema"), record.get("version"), record.get("command"))
    if whose != (SCHEMA, VERSION, "certify"):
        raise UsageError(f"{path} is no certificate of this version of robnet-fx")
    return record


def typed(context: typer.Context) -> str:
    """The command as it was typed, but for quotes: its name, its arguments, and the options that were given."""
    arguments, options = [], []
    for parameter in context.command.params:
        name = str(parameter.name)
        source, value = context.get_parameter_source(name), context.params[name]
        if source is None or source.name != "COMMANDLINE":
            continue
        if parameter.param_type_name == "argument":
            arguments.append(str(value))
        else:
            several = value if isinstance(value, (list, tuple)) else [value]
            options += [word for one in several for word in (parameter.opts[0], *([] if one is True else [str(one)]))]
    return shlex.join(["robnet-fx", str(context.info_name), *arguments, *options])
