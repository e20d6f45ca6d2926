"""Trains a recipe for three iterations on the simulated device, and prints as JSON what it did there.

Of the first iteration, in which all lazy penalties are due, and of the second: none of them logs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback

import torch
from lightning.pytorch import Callback, Trainer
from shared.simulation.device import Device

from litgan import GAN
from litgan.recipe import Recipe

OPTIONS = {
    "trainer.accelerator": "gpu", "trainer.devices": 1, "trainer.strategy": "auto", "trainer.logger": "false",
    "trainer.max_steps": 4, "trainer.log_every_n_steps": 3, "trainer.limit_val_batches": 0,
    "trainer.enable_progress_bar": "false", "data.num_workers": 0, "data.batch_size": 8,
    "realism.every": 0, "samples.every": 0, "gradients.every": 0,
}  # fmt: skip


class Iterations(Callback):
    """Tells the device which iteration begins. Before the fourth the process ends, as there are no weights
    that could be saved.
    """

    def __init__(self, device: Device) -> None:
        self.device = device

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        self.device.iteration = trainer.global_step
        if trainer.global_step == 3:
            found = [[self.device.operations[one], self.device.mistakes[one]] for one in (0, 1)]
            print(json.dumps(found), flush=True)
            os._exit(0)

    def on_exception(self, trainer: Trainer, gan: GAN, exception: BaseException) -> None:
        traceback.print_exception(exception)
        os._exit(1)


def main() -> None:
    given = sys.argv[1:]
    options = [f"--{key}={value}" for key, value in OPTIONS.items() if f"--{key}" not in given]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe([*given, *options, f"--trainer.default_root_dir={folder}"])
        device = Device()
        recipe.trainer.callbacks.insert(0, Iterations(device))
        with device, torch.autograd.set_multithreading_enabled(False):  # so that each place is known
            recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule)


if __name__ == "__main__":
    main()
