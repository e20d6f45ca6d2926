"""Callbacks: what watches a run. Training with and without them is bit-identical, unless `Health` may act."""

from litgan.callbacks.checkpoint import Checkpoint
from litgan.callbacks.gradients import Gradients
from litgan.callbacks.interruption import Interrupted, Interruption
from litgan.callbacks.progress import Progress
from litgan.callbacks.realism import Realism
from litgan.callbacks.samples import Samples
from litgan.callbacks.throughput import Throughput

__all__ = [
    "Checkpoint", "Gradients", "Health", "Interrupted", "Interruption", "Progress", "Realism", "Samples",
    "Throughput",
]  # fmt: skip
