"""Which networks of timm robnet-fx takes: the table of docs/timm.md.

    python -m tests.benchmarks.timm_zoo --out docs/timm.md [resnet10t levit_128s ...]

Random weights and ten classes, at the smallest size each network allows of those tried. *taken* means that it is
traced, parity holds, and `robnet_fx.bound` makes the graphs of its bounds. Each has a process and a limit of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from rich.console import Console

from tests.benchmarks.page import parse, publish

SMALL = [
    "resnet10t", "resnetblur18", "skresnet18", "resnest14d", "ecaresnet26t", "gcresnet33ts", "lambda_resnet26t",
    "botnet26t_256", "dla46_c", "dpn48b", "hrnet_w18_small", "inception_next_atto", "ghostnet_050",
    "ghostnetv2_100", "mobileone_s0", "repvgg_a0", "fastvit_t8", "edgenext_xx_small", "mobilevit_xxs",
    "mobilevitv2_050", "convnextv2_atto", "efficientformerv2_s0", "poolformer_s12", "pvt_v2_b0", "levit_128s",
    "coat_lite_tiny", "mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224", "xcit_nano_12_p16_224", "eca_nfnet_l0",
    "nf_regnet_b0", "mixnet_s", "mobilenetv4_conv_small", "mobilenetv4_hybrid_medium", "pit_ti_224", "repvit_m0_9",
    "rexnet_100", "starnet_s1", "tinynet_e", "tiny_vit_5m_224", "volo_d1_224", "twins_svt_small", "visformer_tiny",
    "focalnet_tiny_srf", "hgnetv2_b0", "hiera_tiny_224", "davit_tiny", "gcvit_xxtiny", "nest_tiny",
    "eva02_tiny_patch14_224", "efficientvit_b0", "efficientvit_m0", "convit_tiny", "deit_tiny_patch16_224",
    "cait_xxs24_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "maxvit_rmlp_pico_rw_256",
    "coatnet_pico_rw_224", "sequencer2d_s", "tnt_s_patch16_224", "beit_base_patch16_224", "mambaout_femto",
    "shvit_s1", "swiftformer_xs", "fasternet_t0", "rdnet_tiny", "nextvit_small", "convmixer_768_32", "selecsls42",
    "test_vit", "test_efficientnet", "test_resnet", "test_convnext", "test_nfnet", "test_byobnet",
]  # fmt: skip
SIZES = dict.fromkeys(SMALL, 64) | {"halonet26t": 256, "efficientformer_l1": 224, "crossvit_tiny_240": 240}
METHOD, LIMIT = "rsip-ssip", 600


def main() -> None:
    options = parse(__doc__, "only these networks")
    rows = []
    for name in options.names or SIZES:
        rows.append(apart(name, SIZES[name]))
        Console(stderr=True).print(rows[-1])
    publish(document(rows), options.out)


def apart(name: str, size: int) -> dict[str, Any]:
    """One row, made in a process of its own."""
    command = [sys.executable, "-c", f"from tests.benchmarks.timm_zoo import report; report({name!r}, {size})"]
    start = time.perf_counter()
    row: dict[str, Any] = {"name": name, "size": size, "nodes": None, "reason": f"no result within {LIMIT} s"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        last = done.stdout.strip().splitlines()[-1:] or ["{}"]
        row["reason"] = (done.stderr.strip().splitlines() or ["the process ended"])[-1]
        row |= json.loads(last[0])
    except subprocess.TimeoutExpired:
        pass
    return row | {"seconds": time.perf_counter() - start}


def report(name: str, size: int) -> None:
    """Print what becomes of one network as JSON."""
    print(json.dumps(examine(name, size)))  # noqa: T201


def examine(name: str, size: int) -> dict[str, Any]:
    """How many operations its clean graph has, or why it is refused."""
    try:
        import timm
    except ImportError:
        raise SystemExit("this needs timm: python -m pip install timm") from None
    import torch

    import robnet_fx

    torch.manual_seed(0)
    sized = {"img_size": size} if takes_a_size(timm.create_model, name, size) else {}
    model = timm.create_model(name, pretrained=False, num_classes=10, **sized).eval()
    try:
        net = robnet_fx.bound(model, robnet_fx.BiasField(1, 1 / 255), METHOD, example=torch.rand(2, 3, size, size))
    except (robnet_fx.UnsupportedError, robnet_fx.UsageError) as error:
        return {"nodes": None, "reason": str(error).splitlines()[0]}
    return {"nodes": sum(node.op == "call_function" for node in net.clean.graph.nodes), "reason": ""}


def takes_a_size(create: Any, name: str, size: int) -> bool:
    """Whether a network is built for a size of images; others take any."""
    try:
        create(name, pretrained=False, img_size=size)
    except TypeError:
        return False
    return True


def document(rows: list[dict[str, Any]]) -> str:
    """The page: how many are taken, and a line a network."""
    taken = [row for row in rows if row["nodes"]]
    lines = [
        f"| {row['name']} | {row['size']} | {'yes' if row['nodes'] else 'no'} | {row['nodes'] or ''} |"
        f" {row['seconds']:.0f} | {row['reason'].replace('|', '/')} |"
        for row in rows
    ]
    return "\n".join([
        "# timm",
        "",
        "Made by `python -m tests.benchmarks.timm_zoo --out docs/timm.md`. Networks of timm with random weights, each",
        "at the smallest size it allows of those tried. *taken*: traced, equal to the model, and bounded by RSIP-SSIP;",
        "*nodes* are the operations of its clean graph.",
        "",
        f"{len(taken)} of {len(rows)} are taken.",
        "",
        "| network | size | taken | nodes | seconds | why not |",
        "|---|---|---|---|---|---|",
        *lines,
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
