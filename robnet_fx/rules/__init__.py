"""Bound rules: one file an operation family, all three bounds beside each other, entered in one table.

Every file of this folder is imported, in the order of their names: a new one needs no entry anywhere.
"""

import importlib
import pkgutil

from robnet_fx.rules.affine import affine
from robnet_fx.rules.elementwise import elementwise
from robnet_fx.rules.registry import DEFAULT, Rule, family, register, relaxers, rule_for, table
from robnet_fx.rules.relaxation import Band, Lines, Relaxation, Slopes

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_name}")

__all__ = [
    "DEFAULT",
    "Band",
    "Lines",
    "Relaxation",
    "Rule",
    "Slopes",
    "affine",
    "elementwise",
    "family",
    "register",
    "relaxers",
    "rule_for",
    "table",
]
