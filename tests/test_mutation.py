"""The mutation script itself, on a handful of mutants; `make mutants` runs them all."""

from __future__ import annotations

import subprocess
import sys

from tests.mutation import EQUIVALENT, ROOT, SUITES, mutants_of


def test_every_file_of_rules_is_mutated():
    package = ROOT / "robnet_fx"
    rules = {f"rules/{path.name}" for path in (package / "rules").glob("*.py")} - {"rules/__init__.py"}
    assert rules | {
        "algebra/domains.py",
        "algebra/kernels.py",
        "algebra/depthwise.py",
        "perturbations/bias_field.py",
        "perturbations/white_noise.py",
    } <= set(SUITES)
    assert all((package / file).is_file() for file in SUITES)


def test_mutants_are_single_edits_of_every_kind():
    files = "algebra/domains.py", "algebra/kernels.py", "rules/relu.py", "rules/clamp.py"
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    edits = {(mutant.before, mutant.after) for mutant in mutants}
    assert ("x.const - radius", "x.const + radius") in edits
    assert ("coef.abs()", "coef") in edits
    assert ("pre.lower < 0", "pre.lower > 0") in edits
    assert ("-pre.lower", "pre.lower") in edits
    assert ("minimum", "maximum") in edits
    assert ("form.coef.clamp(min=0)", "form.coef.clamp(max=0)") in edits
    assert ("x.upper", "x.lower") in edits
    originals = {file: (ROOT / "robnet_fx" / file).read_text() for file in ("algebra/domains.py", "rules/relu.py")}
    for mutant in mutants:
        source = mutant.source
        assert source not in originals.values()
        compile(source, mutant.file, "exec")


def test_equivalent_mutants_are_still_mutants():
    assert set(EQUIVALENT) <= {mutant.key for file in SUITES for mutant in mutants_of(file)}


def test_a_handful_is_killed():
    options = ["--jobs", "1", "--only", r"^(algebra/domains|rules/arithmetic)", "--sample", "12"]
    command = [sys.executable, "tests/mutation.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 survived" in done.stdout
    assert done.stdout.count("killed  ") >= 5
