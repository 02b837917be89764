"""The paper's tables as data: complete, consistent with each other, and about networks and data that there are."""

import pytest

from robnet_fx.errors import UsageError
from robnet_fx.perturbations.bias_field import BiasField
from robnet_fx.train.objectives import default_objective, objective_named
from robnet_fx.zoo.models import REGISTRY
from robnet_fx.zoo.tables import IMAGES, RECIPES, TABLES, WAYS, table

CELLS = [cell for each in TABLES.values() for row in each.rows.values() for cell in row.values()]


def test_cells_are_about_what_there_is():
    for cell in CELLS:
        assert cell.network in REGISTRY and cell.data in IMAGES and cell.column in WAYS
        assert 0 <= cell.paper.certified <= cell.paper.clean <= 100
    for way in WAYS.values():
        assert way.objective is None or objective_named(way.objective)
    assert WAYS["best"].objective == default_objective(BiasField(3, 0.1).build((3, 32, 32)))


def test_cells_of_one_name_are_one_cell():
    """The medium network at eps 40 and alpha 1 stands in table 1 twice, and in table 2."""
    named = {cell.name: cell for cell in CELLS}
    for cell in CELLS:
        same = named[cell.name]
        assert (cell.paper, cell.network, cell.eps, cell.column) == (same.paper, same.network, same.eps, same.column)
    rows = table("table1").rows
    assert rows["eps=40"] == rows["alpha=1"] == table("table2").rows["MC"]
    assert rows["alpha=4"]["rs"].paper == (76.6, 66.1) and table("table3").rows["eps=40"]["ri"].paper == (87.4, 44.3)


def test_a_standard_network_is_trained_once_and_judged_at_every_eps():
    own = [row["std"] for row in table("table1").rows.values()]
    assert {cell.trained for cell in own} == {"dm-medium-std"}
    assert len({cell.name for cell in own}) == 5


def test_rows_and_cells_are_chosen():
    names = [cell.name for _, cell in table("table2").chosen(["SC"], [], "paper")]
    assert names == ["dm-small-std-eps40", "dm-small-ri-eps40-alpha1", "dm-small-rs-eps40-alpha1"]
    chosen = table("table2").chosen(["MC", "LC"], ["best", "std"], "best")
    assert [(row, cell.column) for row, cell in chosen] == [(r, c) for r in ("MC", "LC") for c in ("std", "best")]
    assert len(table("table3").chosen([], [], "best")) == 5 * len(RECIPES["best"])


@pytest.mark.parametrize(
    ("rows", "columns", "recipe", "said"),
    [
        (["XC"], [], "paper", "--row XC: there is none; known: SC, MC, LC"),
        ([], ["best"], "paper", "--cell best: there is none; known: std, ri, rs"),
        ([], [], "worst", "--recipe takes paper or best"),
    ],
)
def test_what_there_is_not_is_named(rows, columns, recipe, said):
    with pytest.raises(UsageError, match=said):
        table("table2").chosen(rows, columns, recipe)
    with pytest.raises(UsageError, match="known: table1, table2, table3"):
        table("table4")
