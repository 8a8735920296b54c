"""Stage 6: a model and prompts → a circuit. One file or folder a method, one line in the table."""

from __future__ import annotations

from mgnp_jax.methods.acdc.config import AcdcConfig
from mgnp_jax.methods.attribution.config import EapConfig, EapIgConfig, NapConfig, NapIgConfig
from mgnp_jax.methods.learned.edge_pruning import EdgePruningConfig
from mgnp_jax.methods.learned.hybrid import HybridConfig
from mgnp_jax.methods.learned.mattr import MattrConfig, MattrEdgesConfig
from mgnp_jax.methods.learned.ugs import UgsConfig
from mgnp_jax.methods.magnitude import MagnitudeConfig
from mgnp_jax.methods.node_patching.config import NodePatchingConfig
from mgnp_jax.methods.node_pruning.method import DiscoverConfig
from mgnp_jax.methods.node_pruning.published import PublishedConfig
from mgnp_jax.methods.protocol import Method
from mgnp_jax.methods.random_nodes import RandomConfig

METHODS: dict[str, type[Method]] = {
    config.name: config
    for config in (
        *(DiscoverConfig, PublishedConfig),
        *(EapConfig, EapIgConfig, NapConfig, NapIgConfig),
        *(EdgePruningConfig, HybridConfig, UgsConfig, MattrConfig, MattrEdgesConfig),
        *(AcdcConfig, NodePatchingConfig),
        *(RandomConfig, MagnitudeConfig),
    )
}
"""The config of every method, by the name it has on the command line."""

DEFAULT: type[Method] = DiscoverConfig
"""The one that is used where none is named."""
