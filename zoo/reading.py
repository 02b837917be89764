"""What a person says about reading their data where the files leave it open."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from robnet_fx.errors import UsageError
from robnet_fx.images.layout import AXES
from robnet_fx.zoo.dataset import refuse

METADATA_KEY = "robnet_fx.reading"
"""The key in an ONNX file's metadata that says how its data set was read."""


@dataclass(frozen=True)
class Reading:
    """How images are read; None leaves it to the files. On the command line these are options of the same names.

    `layout` says how they lie in an .npz file's arrays, "nchw", "nhwc" or "nhw" (grey, without a channel axis), where
    neither their sizes nor the network tell. `resize` is a height and width that images of a folder are brought to;
    `white` the number that stands for white, by which all are divided; `test_share` the share of every class that is
    set aside, by `seed`, as test images of a source that has none. Raises `UsageError` for what makes no sense.
    """

    resize: tuple[int, int] | None = None
    white: float | None = None
    test_share: float | None = None
    seed: int = 0
    layout: str | None = None

    def __post_init__(self) -> None:
        """Refuse sizes, scales and shares that cannot be."""
        if self.layout not in (None, *AXES):
            raise UsageError(f"--layout takes {', '.join(AXES)}, not {self.layout!r}")
        if self.resize is not None and min(self.resize) < 1:
            raise UsageError(f"--resize takes a height and a width of at least 1, not {self.resize}")
        if self.white is not None and not (math.isfinite(self.white) and self.white > 0):
            raise UsageError(f"--white takes the number that stands for white, above 0, not {self.white:g}")
        if self.test_share is not None and not 0 < self.test_share < 1:
            raise UsageError(f"--test-share takes a share between 0 and 1, not {self.test_share:g}")

    def reject(self, name: str | Path, **reasons: str) -> None:
        """`UsageError` for the options that are given and do not apply to the data set `name`, with the reason."""
        for option, reason in reasons.items():
            if getattr(self, option) is not None:
                refuse(name, f"--{option.replace('_', '-')} does not apply: {reason}")

    def metadata(self) -> dict[str, str]:
        """The entry that remembers this reading; none where everything was left to the files."""
        given = {key: value for key, value in asdict(self).items() if value is not None}
        return {METADATA_KEY: json.dumps(given)} if given.keys() - {"seed"} else {}

    def completed(self, metadata: Mapping[str, str]) -> Reading:
        """The same, and as `metadata` remember what is not given here; the seed is theirs where the share is.

        `UsageError` for a share or seed other than the model was trained with: they would mix its training images with
        the test images.
        """
        if METADATA_KEY not in metadata:
            return self
        try:
            past = json.loads(metadata[METADATA_KEY])
            resize = past.get("resize") and (int(past["resize"][0]), int(past["resize"][1]))
            share, seed = past.get("test_share"), int(past.get("seed", 0))
            stored = Reading(resize, past.get("white"), share, seed, past.get("layout"))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise UsageError(f"the model's {METADATA_KEY} metadata cannot be read: {error}") from error
        resize, white = self.resize or stored.resize, self.white or stored.white
        layout = self.layout or stored.layout
        if stored.test_share is None:
            return Reading(resize, white, self.test_share, self.seed, layout)
        if self.test_share is not None and (self.test_share, self.seed) != (stored.test_share, stored.seed):
            raise UsageError(
                f"the model was trained on what --test-share {stored.test_share:g} left by seed {stored.seed}: another "
                "share or seed would judge it on training images\n"
                "  remedy  leave out --test-share, which the model remembers"
            )
        return Reading(resize, white, stored.test_share, stored.seed, layout)


AS_STORED = Reading()
"""Everything is left to the files."""
