"""A folder of instances of the verification competition, decided by `robnet-fx verify`: the table of docs/vnncomp.md.

    python -m tests.benchmarks.vnncomp FOLDER --out docs/vnncomp.md [0 1 17 ...]

FOLDER has an `instances.csv` (network, property, seconds). Each instance is a process of its own with the time that the
file allows, loading counted, one after the other; what was found is kept beside the page, as JSON, and a later run goes
on from there.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks.page import publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", nargs="*", type=int, help="only these instances")
    parser.add_argument("--out", type=Path, help="write the page here")
    options = parser.parse_intermixed_args()
    store = options.out.with_suffix(".json") if options.out else None
    rows = json.loads(store.read_text()) if store is not None and store.exists() else {}
    instances = list(csv.reader((options.folder / "instances.csv").read_text().splitlines()))
    for number in options.numbers or range(len(instances)):
        if str(number) not in rows:
            rows[str(number)] = decided(options.folder, *instances[number])
            Console(stderr=True).print(number, rows[str(number)])
        if store is not None:
            store.write_text(json.dumps(rows, indent=1))
        publish(document(options.folder.name, len(instances), rows), options.out)


def decided(folder: Path, network: str, stated: str, seconds: str) -> dict[str, Any]:
    """What the command finds, and how long the whole of it takes."""
    files = (found(folder / name) for name in (network, stated))
    command = [sys.executable, "-m", "robnet_fx", "verify", *map(str, files), "--timeout", seconds, "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if done.returncode:
        return {"network": network, "answer": "error", "seconds": took, "reason": done.stderr.splitlines()[-1]}
    solved = json.loads(done.stdout)
    cases = [case for case in solved["cases"] if case]
    return {
        "network": network,
        "answer": solved["answer"],
        "seconds": took,
        "search": solved["seconds"],
        "boxes": sum(case["boxes"] for case in cases),
        "proved": min((case["proved"] for case in cases), default=0),
    }


def found(path: Path) -> Path:
    """The file, or what it is packed in."""
    return path if path.exists() else path.with_name(path.name + ".gz")


def document(name: str, count: int, rows: dict[str, dict[str, Any]]) -> str:
    """The page."""
    by_answer: dict[str, list[dict[str, Any]]] = {}
    for row in rows.values():
        by_answer.setdefault(row["answer"], []).append(row)
    totals = "; ".join(f"{answer} {len(found)}" for answer, found in sorted(by_answer.items()))
    settled = sorted(row["seconds"] for row in rows.values() if row["answer"] in ("holds", "violated"))
    lines = [
        f"# {name}",
        "",
        f"Made by `python -m tests.benchmarks.vnncomp {name} --out docs/vnncomp.md`: {len(rows)} of {count} instances,",
        "each by `robnet-fx verify` in a process of its own on one thread, with the time limit of the file. *seconds*",
        "are those of the whole command on the clock, start and loading included; *search* leaves these out.",
        "",
        f"{totals}. Median {settled[len(settled) // 2]:.1f} s, longest {settled[-1]:.0f} s of those settled."
        if settled
        else totals,
        "",
        "| instance | network | answer | seconds | search | boxes | proved |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, row in sorted(rows.items(), key=lambda item: int(item[0])):
        cells = [number, Path(row["network"]).stem, row["answer"], f"{row['seconds']:.1f}"]
        if row["answer"] == "error":
            cells += [row["reason"], "", ""]
        else:
            cells += [f"{row['search']:.1f}", str(row["boxes"]), f"{row['proved']:.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
