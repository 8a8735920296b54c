"""Circuit discovery for transformer language models by multi-granular node pruning.

Reimplements and extends arXiv 2512.10903 in JAX and Flax. The names below are the public
interface; the package reads in the order tasks, models, masks, passes, metrics, methods,
evidence, report, runs.
"""

from mgnp_jax.evidence.config import ExplainConfig
from mgnp_jax.evidence.evidence import Evidence, load_evidence
from mgnp_jax.evidence.explain import explain
from mgnp_jax.masks.circuit import Circuit, binarise, load_circuit
from mgnp_jax.masks.edge_graph import edge_names
from mgnp_jax.masks.granularities import GRANULARITIES, full_masks, gate_count
from mgnp_jax.masks.mib.files import export_mib, import_mib
from mgnp_jax.methods import METHODS
from mgnp_jax.methods.discover import discover
from mgnp_jax.methods.node_pruning.method import DiscoverConfig
from mgnp_jax.methods.node_pruning.prices import Penalties
from mgnp_jax.methods.protocol import Interrupted, Method
from mgnp_jax.metrics.evaluate import evaluate
from mgnp_jax.metrics.sizes import circuit_sizes
from mgnp_jax.models.config import ModelConfig
from mgnp_jax.models.families import FAMILIES
from mgnp_jax.models.family import Family
from mgnp_jax.models.hub import Model, load_model, save_model
from mgnp_jax.passes.forward import forward, two_stream_forward
from mgnp_jax.passes.settings import Execution
from mgnp_jax.report.mib_submission import export_mib_submission
from mgnp_jax.tasks import TASKS, load_task
from mgnp_jax.tasks.metrics import METRICS
from mgnp_jax.tasks.own_pairs import from_pairs
from mgnp_jax.tasks.pairs import PromptPair
from mgnp_jax.tasks.task import Counts, Task, TaskData
from mgnp_jax.types import Answers, Batch, Masks, MgnpError, Params, checksum
from mgnp_jax.version import __version__

__all__ = [
    "FAMILIES",
    "GRANULARITIES",
    "METHODS",
    "METRICS",
    "TASKS",
    "Answers",
    "Batch",
    "Circuit",
    "Counts",
    "DiscoverConfig",
    "Evidence",
    "Execution",
    "ExplainConfig",
    "Family",
    "Interrupted",
    "Masks",
    "Method",
    "MgnpError",
    "Model",
    "ModelConfig",
    "Params",
    "Penalties",
    "PromptPair",
    "Task",
    "TaskData",
    "__version__",
    "binarise",
    "checksum",
    "circuit_sizes",
    "discover",
    "edge_names",
    "evaluate",
    "explain",
    "export_mib",
    "export_mib_submission",
    "forward",
    "from_pairs",
    "full_masks",
    "gate_count",
    "import_mib",
    "load_circuit",
    "load_evidence",
    "load_model",
    "load_task",
    "save_model",
    "two_stream_forward",
]
