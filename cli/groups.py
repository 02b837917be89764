"""Groups of options, each declared once: a dataclass whose fields are options, and commands that name it.

    @dataclass(frozen=True)
    class Images:
        data: Annotated[str | None, typer.Option(help="...")] = None

    def certify(model: Model, images: Images, json: Json = False): ...

On the command line `grouped(certify)` has the options of all its groups; the function gets the groups as values.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its groups as parameters of its own, in the order of its signature.

    Help shows the options of a group in a panel of their own, under the group's `panel`. Two groups of a command must
    not have a field of the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            parameters += _fields(hints[name])
        else:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name]))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {name: group(**{f.name: given.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        command(**made, **given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _fields(group: Any) -> Iterator[inspect.Parameter]:
    """The fields of a group as parameters, its panel written into their options."""
    hints, panel = get_type_hints(group, include_extras=True), getattr(group, "panel", None)
    for field, default in inspect.signature(group).parameters.items():
        kind, info = get_args(hints[field])
        if isinstance(info, type(typer.Option())):
            info = copy.copy(info)
            info.rich_help_panel = panel
        yield default.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info])
