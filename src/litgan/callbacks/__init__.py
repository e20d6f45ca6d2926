"""Callbacks that measure, draw and save a run; they never change its weights."""

from litgan.callbacks.checkpoint import Checkpoint
from litgan.callbacks.feedback import Feedback
from litgan.callbacks.interruption import Interrupted, Interruption
from litgan.callbacks.progress import Progress, ProgressLines
from litgan.callbacks.realism import Realism
from litgan.callbacks.samples import Samples
from litgan.callbacks.threads import Threads
from litgan.callbacks.throughput import Throughput

__all__ = [
    "Checkpoint", "Feedback", "Interrupted", "Interruption", "Progress", "ProgressLines", "Realism",
    "Samples", "Threads", "Throughput",
]  # fmt: skip
