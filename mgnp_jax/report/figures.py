"""Pictures of a circuit: arrays in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mgnp_jax.masks.granularities import ATTENTION_HEADS, ATTENTION_NEURONS, NEURONS, TABLE
from mgnp_jax.report.text import pictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_KL = 1e-3
"""Nats below which an axis of KL is linear, as it has a zero."""

INK, PALE = "#1f4e79", "#eef2f6"


def new_figure(width: float, height: float) -> Figure:
    """An empty picture.

    Args:
      width: in inches.
      height: in inches.
    """
    # Imported here: it takes a second, for which training need not wait.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def heads_figure(masks: Mapping[str, Any], title: str) -> Figure:
    """Heads kept, by layer and head; a kept head is as dark as the share of its neurons.

    Args:
      masks: bool arrays by granularity.
      title: above the picture.
    """
    share = np.asarray(masks[ATTENTION_NEURONS]).mean(-1)
    kept = np.asarray(masks[ATTENTION_HEADS])
    layers, heads = kept.shape
    figure = new_figure(1.8 + 0.45 * heads, 1.6 + 0.28 * layers)
    axes = figure.subplots()
    # A kept head with few neurons must still be told from a pruned one: 0.25 is the floor.
    shade = np.where(kept, 0.25 + 0.75 * share, 0.0)
    image = axes.imshow(shade, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
    axes.set(xlabel="head", ylabel="layer", title=pictured(title))
    axes.set_xticks(range(heads), [str(h) for h in range(heads)])
    axes.set_yticks(range(layers), [str(layer) for layer in range(layers)])
    bar = figure.colorbar(image, ax=axes, ticks=[0, 0.25, 1])
    bar.ax.set_yticklabels(["pruned", "few neurons", "all neurons"])
    return figure


def neurons_figure(masks: Mapping[str, Any], title: str) -> Figure:
    """Share of neurons kept in each layer, one panel a granularity.

    Args:
      masks: bool arrays by granularity.
      title: above the panels.
    """
    panels = {TABLE[name].label: np.asarray(masks[name]) for name in NEURONS}
    layers = len(masks[ATTENTION_HEADS])
    figure = new_figure(9, 1.6 + 0.2 * layers)
    figure.suptitle(pictured(title))
    for axes, (name, mask) in zip(figure.subplots(1, 3, sharey=True), panels.items()):
        share = 100 * mask.reshape(layers, -1).mean(-1)
        axes.barh(range(layers), np.full(layers, 100), color=PALE)
        axes.barh(range(layers), share, color=INK)
        axes.set(title=f"{name}: {100 * mask.mean():.1f} % kept", xlabel="% kept", xlim=(0, 100))
    figure.axes[0].set_ylabel("layer")
    figure.axes[0].set_yticks(range(layers))
    return figure


def trade_off(
    kept: Sequence[float], kl: Sequence[float], score: Sequence[float], title: str
) -> Figure:
    """Faithfulness against size, one point a circuit.

    Args:
      kept: % of the prunable parameters.
      kl: KL(model ‖ circuit) in nats.
      score: the circuit's over the model's.
      title: above the picture.
    """
    figure = new_figure(6, 5)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(kept, kl, "o-")
    above.set(ylabel="KL(model ‖ circuit), nats", title=pictured(title))
    # Nine tenths of what there is to see lies below a tenth of the parameters.
    above.set_xscale("log")
    above.set_yscale("symlog", linthresh=LEAST_KL)
    above.set_ylim(bottom=0)
    below.axhline(1, color="0.7", linewidth=1)
    below.plot(kept, score, "o-")
    below.set(xlabel="% of prunable parameters kept", ylabel="score over the model's")
    return figure
