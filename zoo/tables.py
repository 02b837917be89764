"""The paper's tables as data: their cells, how each network was trained, and the figures that were published.

Henriksen and Lomuscio, *Robust Training of Neural Networks against Bias Field Perturbations*, AAAI 2023, section 6.
Fields are multiplicative of order 3; eps counts pixel levels, of 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from robnet_fx.errors import UsageError

EPOCHS = 200
"""Epochs of standard training, and of robust training after it."""
BATCH_SIZE = 256
"""Images a step. The paper does not say."""
NEAR = 8.0
"""A test image has a near copy where the root mean square difference to a training image is less grey levels."""


@dataclass(frozen=True)
class Way:
    """How the networks of a column are trained; a standard one has no `objective`."""

    label: str
    method: str = "rsip-ssip"
    objective: str | None = None


WAYS = {
    "std": Way("Std"),
    "ri": Way("RI", "rsip-ibp", "equation-6"),
    "rs": Way("RS", "rsip-ssip", "equation-6"),
    "best": Way("best", "rsip-ssip", "cc:cuts=8"),
}
"""The columns, from the left: the paper's three, and ours, which is set beside the paper's RS."""

RECIPES = {"paper": ("std", "ri", "rs"), "best": ("std", "ri", "rs", "best")}
"""The columns that a recipe has."""


@dataclass(frozen=True)
class Images:
    """A data set of the paper: how many images there are, whether they are mirrored and shifted to train (the paper
    does not say), and whether test images may have near copies in the training part."""

    train: int
    test: int
    augment: bool
    copies: bool = False


IMAGES = {"cifar10": Images(50_000, 10_000, augment=True), "mri": Images(5_712, 1_311, augment=False, copies=True)}


class Published(NamedTuple):
    """Per cent of the test images: right, and certified by one bound of the whole box."""

    clean: float
    certified: float

    @property
    def shares(self) -> dict[str, float]:
        """The same as shares in [0, 1], with the digits that were printed."""
        return {name: round(value / 100, 5) for name, value in self._asdict().items()}


@dataclass(frozen=True)
class Cell:
    """A network of a table at one strength: `column` of `WAYS`, `data` of `IMAGES`, `network` of the zoo."""

    network: str
    data: str
    column: str
    eps: float
    alpha: float
    paper: Published

    @property
    def way(self) -> Way:
        """How it is trained."""
        return WAYS[self.column]

    @property
    def images(self) -> Images:
        """Its data set."""
        return IMAGES[self.data]

    @property
    def trained(self) -> str:
        """The name of its network: a standard one is shared by all eps and alpha."""
        if self.way.objective is None:
            return f"{self.network}-{self.column}"
        return f"{self.network}-{self.column}-eps{self.eps:g}-alpha{self.alpha:g}"

    @property
    def name(self) -> str:
        """Its own name: a standard network is judged at every eps."""
        return f"{self.trained}-eps{self.eps:g}" if self.way.objective is None else self.trained


@dataclass(frozen=True)
class Table:
    """A table of the paper: its cells by row and column."""

    number: int
    title: str
    rows: dict[str, dict[str, Cell]]

    def chosen(self, rows: Sequence[str], columns: Sequence[str], recipe: str) -> list[tuple[str, Cell]]:
        """(row, cell) of the rows and columns that are named, of all that the recipe has where none is, in order.

        Raises `UsageError` for a name that there is not.
        """
        if recipe not in RECIPES:
            raise UsageError(f"--recipe takes {' or '.join(RECIPES)}, not {recipe!r}")
        _check("--row", rows, [*self.rows])
        _check("--cell", columns, RECIPES[recipe])
        some = [column for column in RECIPES[recipe] if column in columns or not columns]
        return [(row, cells[c]) for row, cells in self.rows.items() if row in rows or not rows for c in some]


def table(name: str) -> Table:
    """The table `table1`, `table2` or `table3`; `UsageError` for another name."""
    if name not in TABLES:
        raise UsageError(f"unknown table {name!r}; known: {', '.join(TABLES)}")
    return TABLES[name]


def _check(option: str, said: Sequence[str], known: Sequence[str]) -> None:
    for name in said:
        if name not in known:
            raise UsageError(f"{option} {name}: there is none; known: {', '.join(known)}")


def _row(network: str, data: str, eps: float, alpha: float, *figures: float) -> dict[str, Cell]:
    """The cells of a row from its figures in the paper's order: clean Std, RI, RS, then certified."""
    paper = [Published(*pair) for pair in zip(figures[:3], figures[3:], strict=True)]
    own = dict(zip(WAYS, [*paper, paper[-1]], strict=True))
    return {column: Cell(network, data, column, eps, alpha, own[column]) for column in WAYS}


_MEDIUM, _MRI = ("dm-medium", "cifar10"), ("mri", "mri")
_MC = _row(*_MEDIUM, 40, 1, 82.9, 46.3, 76.6, 0.0, 35.2, 62.9)  # printed three times in the paper

TABLES = {
    "table1": Table(
        1,
        "DM-Medium on CIFAR-10 by eps (alpha 1) and by alpha (eps 40)",
        {
            "eps=1": _row(*_MEDIUM, 1, 1, 82.9, 78.1, 81.6, 65.7, 77.8, 81.3),
            "eps=5": _row(*_MEDIUM, 5, 1, 82.9, 72.1, 81.0, 41.2, 71.3, 78.5),
            "eps=10": _row(*_MEDIUM, 10, 1, 82.9, 66.8, 79.6, 5.7, 64.9, 75.1),
            "eps=20": _row(*_MEDIUM, 20, 1, 82.9, 54.8, 78.7, 0.0, 49.6, 70.2),
            "eps=40": _MC,
            "alpha=0.25": _row(*_MEDIUM, 40, 0.25, 82.9, 49.0, 76.7, 0.0, 33.0, 58.6),
            "alpha=0.5": _row(*_MEDIUM, 40, 0.5, 82.9, 45.0, 77.2, 0.0, 33.2, 61.0),
            "alpha=1": _MC,
            "alpha=2": _row(*_MEDIUM, 40, 2, 82.9, 44.9, 76.7, 0.0, 35.0, 64.3),
            "alpha=4": _row(*_MEDIUM, 40, 4, 82.9, 41.8, 76.6, 0.0, 30.6, 66.1),
        },
    ),
    "table2": Table(
        2,
        "CIFAR-10 networks at eps 40, alpha 1",
        {
            "SC": _row("dm-small", "cifar10", 40, 1, 75.6, 51.2, 72.5, 9.45, 41.2, 56.4),
            "MC": _MC,
            "LC": _row("dm-large", "cifar10", 40, 1, 85.9, 44.8, 79.2, 0.0, 34.3, 65.9),
        },
    ),
    "table3": Table(
        3,
        "The MRI network by eps, alpha 1",
        {
            "eps=1": _row(*_MRI, 1, 1, 97.8, 98.2, 97.6, 97.7, 98.1, 97.5),
            "eps=5": _row(*_MRI, 5, 1, 97.8, 97.1, 97.9, 89.2, 95.6, 96.6),
            "eps=10": _row(*_MRI, 10, 1, 97.8, 97.2, 97.9, 17.4, 92.1, 96.1),
            "eps=20": _row(*_MRI, 20, 1, 97.8, 95.3, 98.0, 1.4, 71.2, 94.0),
            "eps=40": _row(*_MRI, 40, 1, 97.8, 87.4, 97.4, 0.0, 44.3, 96.6),
        },
    ),
}
