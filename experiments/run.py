"""The main job: find a circuit, measure it, save it with tables and pictures.

    python -m experiments.run --task ioi
    python -m experiments.run --task gp --model smollm2-135m --out runs/gp-smollm2
    python -m experiments.run --task ioi --method magnitude --keep 0.2
    python -m experiments.run --task ioi --keep 0.05
    python -m experiments.run --task gp --model smollm2-135m --out runs/gp-smollm2 --resume

Needs no download with the default model. On two CPU cores the first command takes about
a minute; training on SmolLM2's IOI prompts took six. Stopped by Ctrl-C or SIGTERM (exit status 130
or 143), or killed, it goes on with `--resume`, to the same circuit.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console

from experiments.command import command
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.run import run


def main(config: RunConfig, console: Console) -> Any:
    """One circuit, and those of all other sizes where the method ranks nodes.

    Args:
      config: what to do.
      console: where to report.
    """
    return run(config, console)


if __name__ == "__main__":
    command(RunConfig, main, distributed=True)
