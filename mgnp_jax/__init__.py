"""Circuit discovery for transformer language models by multi-granular node pruning.

Reimplements and extends arXiv 2512.10903 in JAX and Flax. The names below are the public
interface; the package reads in the order tasks, models, masks, metrics, train.
"""

from mgnp_jax.masks.circuit import Circuit, binarise, load_circuit
from mgnp_jax.masks.granularities import GRANULARITIES, full_masks, gate_count
from mgnp_jax.metrics.evaluate import evaluate
from mgnp_jax.metrics.sizes import circuit_sizes
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.forward import forward, two_stream_forward
from mgnp_jax.models.hub import Model, load_model, save_model
from mgnp_jax.tasks import TASKS, TaskData, load_task
from mgnp_jax.train.config import DiscoverConfig, Penalties
from mgnp_jax.train.loop import discover
from mgnp_jax.types import Batch, Masks, MgnpError, Params, Readout, checksum
from mgnp_jax.version import __version__

__all__ = [
    "GRANULARITIES",
    "TASKS",
    "Batch",
    "Circuit",
    "DiscoverConfig",
    "Masks",
    "MgnpError",
    "Model",
    "ModelConfig",
    "Params",
    "Penalties",
    "Readout",
    "TaskData",
    "__version__",
    "binarise",
    "checksum",
    "circuit_sizes",
    "discover",
    "evaluate",
    "forward",
    "full_masks",
    "gate_count",
    "load_circuit",
    "load_model",
    "load_task",
    "save_model",
    "two_stream_forward",
]
