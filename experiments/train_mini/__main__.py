"""Trains the embedded default model and writes it.

python -m experiments.train_mini --out DIR
"""

from __future__ import annotations

from rich.console import Console

import mgnp_jax as mg
from experiments.command import command
from experiments.train_mini.train import TrainMiniConfig, train


def train_and_save(config: TrainMiniConfig, console: Console) -> None:
    """Trains the model and writes it to a folder of its own.

    Args:
      config: what to train, and where to write it.
      console: where to report.

    Raises:
      MgnpError: if the folder is a file or holds something, before anything is trained.
    """
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise mg.MgnpError(f"--out {config.out} is not an empty folder; pass a new one")
    mg.save_model(train(config), config.out)
    console.print(f"Saved to {config.out}")


if __name__ == "__main__":
    command(TrainMiniConfig, train_and_save)
