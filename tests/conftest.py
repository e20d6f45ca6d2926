"""What all tests share: one tiny GAN, synthetic data and a quiet Trainer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

from litgan import GAN
from litgan.callbacks import Checkpoint
from litgan.checkpoints import AtomicCheckpointIO
from litgan.data import Ring
from litgan.losses import NonSaturating
from litgan.networks import MLPDiscriminator, MLPGenerator

pytest.register_assert_rewrite("contract")  # its asserts tell what they compared, as those of test files do

LAUNCHED = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: no worker starts a long one when the others have nothing left."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _keep_to_yourself(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Caches go to a temporary folder, W&B stays offline, each run gets an id and leaves no process group.

    torch's CPU generator is seeded before each test: no result depends on which tests ran before.
    """
    torch.default_generator.manual_seed(0)
    monkeypatch.setenv("LITGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("LITGAN_RUN_ID", "")
    yield
    for name in LAUNCHED:  # Lightning leaves them behind; a command would take itself for a rank
        os.environ.pop(name, None)
    if dist.is_initialized():  # Lightning leaves it to the end of the process
        dist.destroy_process_group()


@pytest.fixture
def tiny_gan() -> Callable[..., GAN]:
    """Makes a GAN, or a subclass, of two MLPs for points on the plane; arguments replace the defaults."""

    def make(kind: type[GAN] = GAN, **options: Any) -> GAN:
        adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99))
        defaults = {
            "generator": partial(MLPGenerator, latent_dim=4, widths=(16,)),
            "discriminator": partial(MLPDiscriminator, widths=(16,), activation="silu"),
            "loss": NonSaturating(),
            "generator_optimizer": adam,
            "discriminator_optimizer": adam,
            "sample_shape": (2,),
        }
        return kind(**(defaults | options))

    return make


@pytest.fixture
def tiny_data() -> Callable[..., Ring]:
    """Makes a data set of points: by default epochs of 5 batches of 8."""

    def make(**options: Any) -> Ring:
        return Ring(**({"samples": 40, "batch_size": 8} | options))

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Makes a Trainer for so many iterations on the CPU, with litgan's checkpoints, silent."""

    def make(iterations: int, **options: Any) -> Trainer:
        keeps = any(isinstance(callback, Checkpoint) for callback in options.get("callbacks", ()))
        defaults = {
            "max_steps": iterations,
            "max_epochs": -1,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": keeps,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
        }
        return Trainer(plugins=[AtomicCheckpointIO()], **(defaults | options))

    return make


@pytest.fixture
def single_thread() -> Iterator[None]:
    """One core, as on the smallest machine that litgan is meant for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
