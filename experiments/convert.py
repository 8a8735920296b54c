"""Circuits to and from the files of EAP-IG and MIB.

    python -m experiments.convert --circuit runs/ioi --to-mib ioi.json
    python -m experiments.convert --circuit runs/ioi --submission ioi_gpt2
    python -m experiments.convert --from-mib ioi.json --model gpt2 --task ioi --out runs/theirs
    python -m experiments.evaluate --circuit runs/theirs

A file whose name ends in .pt instead of .json wants PyTorch.
"""

from __future__ import annotations

from experiments.command import command
from mgnp_jax.runs.conversion import ConvertConfig, convert

if __name__ == "__main__":
    command(ConvertConfig, convert)
