"""The bound methods, as data: which forward domain feeds `pre`, and how far the backward pass goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robnet_fx.errors import UsageError
from robnet_fx.perturbations.base import Transform
from robnet_fx.rules import DEFAULT

Symbols = int | Literal["all"]
"""How many error symbols SSIP keeps of a sample: a number, or every one that memory holds."""


class OrNone(int):
    """So many error symbols of a sample, or none of one that has more: bounds that are of no use then cost little."""


@dataclass(frozen=True)
class Method:
    """`symbolic`: `pre` from IBP ∩ SSIP, else from IBP. `backward`: RSIP from the spec to the entry; without it the
    spec goes back through the last affine nodes only and is bounded there by the forward domain. `everywhere`: RSIP
    for every intermediate layer too. `relaxer`: whose relaxations, the default ones for what it has none for
    (`rules.register`)."""

    symbolic: bool
    backward: bool
    everywhere: bool = False
    relaxer: str = DEFAULT

    @property
    def by_rows(self) -> bool:
        """Whether intermediate values are bounded by RSIP, unit by unit: slow, and different for every image."""
        return self.everywhere


METHODS = {
    "ibp": Method(symbolic=False, backward=False),
    "ssip": Method(symbolic=True, backward=False),
    "rsip-ibp": Method(symbolic=False, backward=True),
    "rsip-ssip": Method(symbolic=True, backward=True),
    "rsip": Method(symbolic=True, backward=True, everywhere=True),
}
"""Name -> method, in the order in which help and tables list them."""


def default_method(transform: Transform) -> str:
    """The paper's method, or where the coefficients are too many for SSIP the next best one."""
    return "rsip-ssip" if transform.fits_ssip else "rsip-ibp"


def method_named(name: str) -> Method:
    """The method of a name; `UsageError` lists the names."""
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]


def check_symbols(symbols: Symbols, method: str) -> None:
    """`UsageError` unless the method can keep so many error symbols."""
    if symbols != "all" and (isinstance(symbols, bool) or not isinstance(symbols, int) or symbols < 0):
        raise UsageError(f'symbols must be "all" or a whole number of at least 0, not {symbols!r}')
    if not method_named(method).symbolic and symbols:
        raise UsageError(f"method {method} has no SSIP, whose errors symbols keep: use rsip-ssip, or no symbols")


def check_fixed(symbols: Symbols) -> None:
    """`UsageError` unless so many error symbols have one layout for all images, as a compiler or a file needs it."""
    if symbols == "all":
        raise UsageError(
            'with symbols "all" the sizes in a bounds graph follow from the images: it cannot be compiled or exported\n'
            "  remedy  give a number of symbols"
        )
