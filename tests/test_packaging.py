"""The wheel holds one top-level package with everything in it, and everything it imports is declared."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import robnet_fx

ROOT = Path(__file__).parents[1]
SOURCES = {"robnet_fx": ROOT / "robnet_fx", "robnet_fx/cli": ROOT / "cli", "robnet_fx/zoo": ROOT / "zoo"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def modules() -> dict[str, Path]:
    """Every module of the package: its path as installed, and where it lies here."""
    return {
        f"{installed}/{file.relative_to(folder)}": file
        for installed, folder in SOURCES.items()
        for file in folder.rglob("*.py")
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The built wheel. It is built from a copy, since setuptools leaves build/ and *.egg-info in the source tree."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("robnet_fx", "cli", "zoo"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*build, "--wheel-dir", copy / "dist", copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return zipfile.Path(path)


def test_the_wheel_puts_only_robnet_fx_into_site_packages(wheel: zipfile.Path) -> None:
    top = {entry.name for entry in wheel.iterdir()}
    assert top == {"robnet_fx", f"robnet_fx-{robnet_fx.__version__}.dist-info"}


def test_the_wheel_holds_every_module_and_its_data(wheel: zipfile.Path) -> None:
    held = set(wheel.root.namelist())
    files = ("page/page.css", "page/inspect.css", "page/inspect.js", "answers/answers.css")
    pages = {f"robnet_fx/report/{name}" for name in files}
    missing = {*modules(), *pages, "robnet_fx/py.typed"} - held
    assert not missing, "list their packages in pyproject.toml, [tool.setuptools] packages"


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {robnet_fx.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_links_lead_type_checkers_to_cli_and_zoo() -> None:
    for name in ("cli", "zoo"):
        link = ROOT / "robnet_fx" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..", name)


def test_every_import_is_a_declared_dependency() -> None:
    def canonical(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    declared = {canonical(re.split(r"[^\w.-]", requirement)[0]) for requirement in PROJECT["dependencies"]}
    distributions = packages_distributions()
    undeclared = {}
    for installed, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"robnet_fx"}:
                providers = {canonical(name) for name in distributions.get(top, [top])}
                if not providers & declared:
                    undeclared[top] = installed
    assert not undeclared


def test_what_is_declared_is_pinned() -> None:
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extra = PROJECT["optional-dependencies"]["dev"]
    for requirement in [*PROJECT["dependencies"], *extra]:
        assert re.split(r"[^\w.-]", requirement)[0].lower() in pinned
