"""Which images a folder holds: its parts, their class folders and the files in them, as torchvision would list them."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from robnet_fx.zoo.dataset import count_text, refuse
from robnet_fx.zoo.parts import PART_OF, PARTS, TRAIN, check_parts, share_note, split_off
from robnet_fx.zoo.picture import EXTENSIONS
from robnet_fx.zoo.reading import Reading

Samples = list[tuple[str, int]]
"""Files with their labels."""


def list_images(root: Path, reading: Reading) -> tuple[dict[str, Samples], tuple[str, ...], tuple[str, ...]]:
    """(the samples of each part, classes, notes). Raises `UsageError` where a part or a class has none.

    Parts are folders called train, val or test, or what else `PART_OF` has; without any, `root` holds the classes.
    Below a class folder all images count, at any depth. What is hidden or has no extension of an image is skipped.
    """
    places: dict[str, list[Path]] = {}
    for place in _folders(root):
        places.setdefault(PART_OF.get(place.name.lower(), ""), []).append(place)
    named = {part: places[part] for part in PARTS if part in places}
    for part, found in named.items():
        if len(found) > 1:
            refuse(root, f"{' and '.join(f'{place.name}/' for place in found)} both look like the {part} part")
    skipped: list[str] = []
    listed = {part: _part(root, found[0], skipped) for part, found in named.items()}
    listed = listed or {TRAIN: _part(root, root, skipped)}
    check_parts(root, set(listed), reading, "" if named else f": its folders are {_few(places.get('', []))}")
    classes, _ = listed[TRAIN]
    number = {name: label for label, name in enumerate(classes)}
    notes = [f"{count_text(len(skipped), 'file')} skipped: {', '.join(_kinds(skipped))}"] if skipped else []
    parts: dict[str, Samples] = {}
    for part, (others, samples) in listed.items():
        if unknown := set(others) - set(number):
            refuse(root, f"{part}/ has classes that train/ has not: {', '.join(sorted(unknown))}")
        if missing := [name for name in classes if name not in others]:
            notes.append(f"no {part} images of {', '.join(missing)}")
        parts[part] = [(file, number[others[label]]) for file, label in samples]
    if reading.test_share is not None:
        samples = parts[TRAIN]
        chosen = split_off(root, torch.tensor([label for _, label in samples]), reading)
        parts |= {part: [samples[i] for i in index.tolist()] for part, index in chosen.items()}
        notes.append(share_note(reading))
    return parts, tuple(classes), tuple(notes)


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _part(root: Path, place: Path, skipped: list[str]) -> tuple[list[str], Samples]:
    """(classes, samples) of one part."""
    classes = _folders(place)
    if not classes:
        where = "" if place == root else f"{place.name}/"
        refuse(root, f"{where or 'it'} has no class folders: images go into {where}<class>/")
    samples: Samples = []
    for label, folder in enumerate(classes):
        count = len(samples)
        for where, below, files in os.walk(folder, followlinks=True):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(files):
                if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                    samples.append((os.path.join(where, name), label))
                elif not name.startswith("."):
                    skipped.append(name)
        if len(samples) == count:
            refuse(root, f"{folder.relative_to(root)}/ has no images (files ending in {', '.join(EXTENSIONS)})")
    return [folder.name for folder in classes], samples


def _few(folders: list[Path]) -> str:
    return ", ".join([f"{folder.name}/" for folder in folders[:4]] + ["..."] * (len(folders) > 4))


def _kinds(names: list[str]) -> list[str]:
    kinds = sorted({os.path.splitext(name)[1] or name for name in names})
    return [*kinds[:3], *(["..."] if len(kinds) > 3 else [])]
