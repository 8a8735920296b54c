"""Trains the embedded default model and writes it.

python -m experiments.train_mini --out DIR
"""

from __future__ import annotations

import tyro

from experiments.train_mini.train import TrainMiniConfig, train
from mgnp_jax.models.hub import save_model

if __name__ == "__main__":
    arguments = tyro.cli(TrainMiniConfig)
    save_model(train(arguments), arguments.out)
