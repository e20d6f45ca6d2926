"""What all tests share: one tiny GAN, synthetic data and a quiet Trainer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from PIL import Image

from litgan import GAN, cli
from litgan.callbacks import Checkpoint
from litgan.checkpoints import AtomicCheckpointIO
from litgan.data import Digits, Ring
from litgan.losses import NonSaturating
from litgan.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator

pytest.register_assert_rewrite(
    "contract", "shared"
)  # its asserts tell what they compared, as those of test files do

LONG = ("train", "spawn", "heavy")
LAUNCHED = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def pytest_configure() -> None:
    torch.set_num_threads(1)  # tests are small, and workers run beside each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first: no worker starts one when the others have nothing left."""
    long = {item.path for item in items if any(map(item.get_closest_marker, LONG))}
    items.sort(key=lambda item: item.path not in long)


class Memory(Logger):
    """Keeps what it is given: `rows` of scalars, `hyperparameters` all in one."""

    name, version = "memory", "0"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.hyperparameters: dict[str, Any] = {}

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.rows.append(dict(metrics))

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.hyperparameters |= params

    def values(self, key: str) -> dict[int, float]:
        """{images_seen: value} of a key."""
        return {row["images_seen"]: row[key] for row in self.rows if key in row}


@pytest.fixture(autouse=True)
def _keep_to_yourself(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Caches go to a temporary folder, W&B stays offline, each run gets an id and leaves no process group.

    torch's CPU generator is seeded before each test: no result depends on which tests ran before.
    """
    torch.default_generator.manual_seed(0)
    # Lightning ignores Ctrl-C after a KeyboardInterrupt, and nohup ignores SIGHUP: what is ignored stays so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
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


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 synthetic color images, of ten classes where somebody asks for classes."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for index in range(12):
        file = folder / str(index % 10) / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(file)
    return folder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of digits by class, a `shared.fits.Run`, for tests that only read it."""
    from shared.fits import conditional_run

    return conditional_run(tmp_path_factory)


@pytest.fixture(scope="session")
def simulated_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes torch find a CUDA device, for `shared.simulation`."""
    from shared.simulation.launch import build

    return build(tmp_path_factory.mktemp("device"))


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def digits_gan(tiny_gan: Callable[..., GAN]) -> Callable[..., GAN]:
    """Makes a small convolutional GAN for digits, with batch and spectral normalization: both keep state."""

    def make(**options: Any) -> GAN:
        networks = {
            "generator": partial(DCGANGenerator, latent_dim=8, widths=[8, 8]),
            "discriminator": partial(DCGANDiscriminator, widths=[8, 8], spectral_norm=True),
            "sample_shape": (1, 8, 8),
        }
        return tiny_gan(**(networks | options))

    return make


@pytest.fixture
def digits() -> Digits:
    return Digits(batch_size=8)


@pytest.fixture
def complaint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs a command that must fail; returns its sentence, checked for form."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)

    def run(verb: str, *arguments: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([verb, *map(str, arguments)])
        said = capsys.readouterr().err
        assert end.value.code in (1, 2)
        assert "Traceback" not in said
        *_, last = said.splitlines()
        assert said.count("litgan: error: ") == 1
        assert last.startswith("litgan: error: ")
        sentence = last.removeprefix("litgan: error: ")
        assert len(sentence) < 500
        return sentence

    return run
