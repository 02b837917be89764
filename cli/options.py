"""The arguments that commands share: groups of options (`groups.py`) and single ones, each declared once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from robnet_fx.cli import texts
from robnet_fx.cli.errors import warn
from robnet_fx.errors import UsageError

if TYPE_CHECKING:
    from robnet_fx.perturbations.base import Perturbation as Specification
    from robnet_fx.verify.search import Limits
    from robnet_fx.zoo.reading import Reading


@dataclass(frozen=True)
class Model:
    """A model file, and what stands between images and network."""

    panel: ClassVar[str] = "Model"

    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A classifier as an ONNX file.", show_default=False)]
    output: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The output that holds the logits, or a tensor inside the network, by its name in the file. "
            "By default what the model's metadata say, else the only output that can be logits.",
            show_default=False,
        ),
    ] = None
    flat: Annotated[
        str | None,
        typer.Option(
            metavar="ORDER",
            help="The order of a flat network's input: planes (one channel after the other) or pixels.",
            show_default="what the network and its accuracy tell",
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="The model expects (pixels in 0..1 - mean) / std: one number, or one a channel (0.485,0.456,0.406). "
            "By default what the model's metadata say, else no normalisation.",
            show_default=False,
        ),
    ] = None
    std: Annotated[str | None, typer.Option(metavar="NUMBERS", help="See --mean.", show_default=False)] = None


@dataclass(frozen=True)
class Images:
    """A data set, and how it is read."""

    panel: ClassVar[str] = "Data"

    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="digits, cifar10, mnist, a folder with train/ and test/ (and val/) images, or an .npz file. "
            "By default what the model's metadata or its input and class shape suggest.",
            show_default=False,
        ),
    ] = None
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Bring the images of a folder to one size, such as 128x128.", show_default=False
        ),
    ] = None
    white: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="The number that stands for white: pixels are v/N.",
            show_default="what the files' type says: 255, 65535, or 1 for floats",
        ),
    ] = None
    test_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Set this share of every class aside, by --seed, as the test images of data without any: 0.2.",
            show_default=False,
        ),
    ] = None
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="AXES",
            help="How images lie in an .npz file: nchw (channels first), nhwc (last) or nhw (grey, no channel axis).",
            show_default="what their sizes, the network and its accuracy tell",
        ),
    ] = None

    def reading(self, seed: int = 0) -> Reading:
        """How the data set is read, as the library takes it."""
        from robnet_fx.zoo.reading import Reading

        size = None if self.resize is None else texts.read_size(self.resize)
        return Reading(size, self.white, self.test_share, seed, self.layout)


@dataclass(frozen=True)
class Perturbation:
    """What is done to the images: one of `eps`, `noise` and `box` says what and how strongly."""

    panel: ClassVar[str] = "Perturbation (one of --eps, --noise, --box)"

    eps: Annotated[
        str | None,
        typer.Option(
            metavar="EPS",
            help="A bias field of this strength in pixel levels: 40 is 40/255. Or a fraction (40/255), or per cent "
            "(15.7%). For certify also several: 5,10,20,40.",
            show_default=False,
        ),
    ] = None
    noise: Annotated[
        str | None,
        typer.Option(
            metavar="EPS", help="Noise of this strength in every pixel, in levels as for --eps.", show_default=False
        ),
    ] = None
    box: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A bias field with a box for every coefficient, from a JSON file: "
            '{"order": 0, "multiplicative": [[0.9, 1.1]], "additive": [[-0.05, 0.05]]}, a [lower, upper] pair '
            "for each coefficient, the last axis's power growing first; one of the two may be left out.",
            show_default=False,
        ),
    ] = None
    order: Annotated[int | None, typer.Option(help="Order of the bias field; 0 is contrast.", show_default="3")] = None
    additive: Annotated[
        bool, typer.Option("--additive", help="The field has an additive part too: brightness where the order is 0.")
    ] = False
    additive_only: Annotated[bool, typer.Option("--additive-only", help="The field has its additive part alone.")] = (
        False
    )
    clip: Annotated[str, typer.Option(help="Form of the pixel clip: relu (the paper's), clamp or none.")] = "relu"

    @property
    def given(self) -> bool:
        """Whether a strength is given."""
        return any(value is not None for value in (self.eps, self.noise, self.box))

    def read(self, *, needed: bool = True) -> Specification:
        """The perturbation; a field of strength 0 where none is given or `needed`, for graphs are the same at any."""
        wanted, strengths = self.read_several(needed=needed)
        if strengths:
            option = "--eps" if self.eps is not None else "--noise"
            raise UsageError(f"{option} takes one strength here: several, with commas between them, are for certify")
        return wanted

    def read_several(self, *, needed: bool = True) -> tuple[Specification, list[float]]:
        """The perturbation at its largest strength, and all strengths, the smallest first, where the option has commas
        in it; none where one is given."""
        from robnet_fx.perturbations.bias_field import BiasField
        from robnet_fx.perturbations.box_file import read_box
        from robnet_fx.perturbations.white_noise import WhiteNoise

        ways = {"--eps": self.eps, "--noise": self.noise, "--box": self.box}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are different perturbations: give one of them")
        if needed and not given:
            raise UsageError("say how strong the perturbation is: --eps 40 (a bias field), --noise 2, or --box FILE")
        of_fields = {"--order": self.order is not None, "--additive": self.additive}
        of_fields["--additive-only"] = self.additive_only
        for option in (name for name, there in of_fields.items() if there and given and given[0] != "--eps"):
            reason = "is for bias fields" if self.noise is not None else "is what the file says"
            raise UsageError(f"{option} does not go with {given[0]}: it {reason}")
        if self.box is not None:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                field = read_box(self.box)
            for warning in said:
                warn(f"{self.box}: {warning.message}")
            return field, []
        if self.noise is not None:
            strengths = texts.read_strengths(self.noise, "--noise")
            return WhiteNoise(strengths[-1]), strengths if "," in self.noise else []
        text, order = "0" if self.eps is None else self.eps, 3 if self.order is None else self.order
        strengths = texts.read_strengths(text)
        field = BiasField(order, strengths[-1], not self.additive_only, self.additive or self.additive_only)
        return field, strengths if "," in text else []

    @property
    def form(self) -> str | None:
        """The library's name of the clip; the library refuses what it does not know."""
        return None if self.clip == "none" else self.clip


@dataclass(frozen=True)
class Effort:
    """What an image may cost."""

    panel: ClassVar[str] = "Effort"

    budget: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Seconds an image: what one bound of the whole box does not prove is split until it is certified, "
            "falsified or the time is up.",
            show_default="10, or no limit with --boxes",
        ),
    ] = None
    boxes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Parts of the box an image: the same answers on any machine. 1 is a verdict without splitting.",
            show_default="no limit",
        ),
    ] = None

    def limits(self) -> Limits:
        """As the library takes them."""
        from robnet_fx.verify.decision import USUAL
        from robnet_fx.verify.search import Limits

        if self.budget is not None and not 0 <= self.budget < float("inf"):
            raise UsageError(f"--budget takes seconds, not {self.budget}")
        if self.boxes is not None and self.boxes < 1:
            raise UsageError(f"--boxes must be at least 1, not {self.boxes}")
        return USUAL if self.budget is None and self.boxes is None else Limits(self.budget, self.boxes)


Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory that bounds may take, as 8GB or 500MB: fewer parts of boxes at once, and fewer symbols.",
        show_default="all that is free",
    ),
]

SYMBOLS = 4096
"""How many error symbols a verdict keeps where nothing is said, or as many as memory holds: docs/symbols.md has why."""

Method = Annotated[
    str | None,
    typer.Option(
        help="Bounds: ibp, ssip, rsip-ibp, rsip-ssip, or, slow and tighter, rsip.",
        show_default="rsip-ssip, or rsip-ibp for noise in many pixels",
    ),
]
Symbols = Annotated[
    str | None,
    typer.Option(
        metavar="N|all",
        help="How many errors of relaxations the verdict's forward symbolic bounds keep of an image, so that later "
        "layers can cancel them: tighter, and slower. 0 keeps none.",
        show_default=f"{SYMBOLS}, fewer where memory asks for it, none for methods without such bounds",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Use N test images (always the same random ones).", show_default="all"),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:1.", show_default="cuda if there is one")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else.")]


def target(path: Path | None) -> Path | None:
    """A file that is written at the end of a command: what could not be written then is refused before the work."""
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"{path} is a directory")
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"there is no directory {path.parent}")
    return path


Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", callback=target, help="Write the JSON document to FILE too.", show_default=False),
]
Html = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        callback=target,
        help="Write a page too: figures, images under the worst fields, how answers were reached.",
        show_default=False,
    ),
]
