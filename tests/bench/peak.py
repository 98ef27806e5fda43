"""How far from the processor's peak each contender of `graph` is, and how fast that peak is here.

The peak is that of loops of multiplications alone (peak.cpp), on all cores. A network's operations
are those of its products, counted by PyTorch; a contender that needs fewer is no further from it.
"""

import os
import shlex
import statistics
import subprocess
import tempfile
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from service.inference.cpus import available_cpus
from tests.bench.contenders import network
from tests.bench.record import Record, read, table

_ROUNDS = 5
_UNITS = {"bf16": "bfloat16", "int8": "int8"}  # by a word in a contender's name; others are float32


def run(name: str) -> None:
    """Print and record the peaks, and each contender's share of the one that it computes with."""
    peaks = _peaks()
    gflop = _gflop(name)
    record = Record("peak", name)
    record.add(what="operations of an image", gflop=round(gflop, 3))
    for unit, gflops in peaks.items():
        record.add(what=f"peak in {unit}", gflops=gflops)
    rows = []
    for line in read("graph", name)[1]:
        if "ms_per_image" not in line or "with" in line["what"].split():
            continue
        unit = next((unit for word, unit in _UNITS.items() if word in line["what"]), "float32")
        gflops = gflop / line["ms_per_image"] * 1e3
        share = round(gflops / peaks[unit], 3) if unit in peaks else None
        record.add(batch=line["batch"], what=line["what"], gflops=round(gflops, 1), share=share)
        rows.append([line["batch"], line["what"], round(gflops, 1), share])
    print(f"\n{name}: {gflop:.3g} GFLOP an image; peaks in GFLOP/s: {peaks}\n")
    print(*table(["batch", "", "GFLOP/s", "of the peak"], rows), sep="\n")


def _peaks() -> dict[str, float]:
    """GFLOP/s by unit: medians of a few rounds."""
    source = Path(__file__).with_suffix(".cpp")
    compiler = [*shlex.split(os.environ.get("CXX", "g++")), "-O2", "-march=native", "-pthread"]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/peak"
        subprocess.run([*compiler, str(source), "-o", program], check=True)
        for _ in range(_ROUNDS):
            command = [program, str(available_cpus())]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for unit, figure in map(str.split, lines.splitlines()):
                found.setdefault(unit, []).append(float(figure))
    return {unit: round(statistics.median(values), 1) for unit, values in found.items()}


def _gflop(name: str) -> float:
    model = network(name)
    size = model.config.img_size
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *size))
    return float(counter.get_total_flops()) / 1e9
