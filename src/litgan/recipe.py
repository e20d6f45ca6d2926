"""Recipes: from the YAML and the command line to a trainer, a GAN and its data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import litgan.networks  # so that recipes may name them without their module
import litgan.reconstruction  # noqa: F401
from litgan import checkpoints, runs, strategy
from litgan.callbacks import (
    Checkpoint,
    Feedback,
    Progress,
    ProgressLines,
    Realism,
    Samples,
    Threads,
    Throughput,
)
from litgan.callbacks.interruption import (
    CANCELLED,
    STOPPED,
    Interrupted,
    Interruption,
    launched_by_lightning,
)
from litgan.callbacks.throughput import untimed
from litgan.checkpoints import AtomicCheckpointIO
from litgan.condition import as_plain
from litgan.data import GANDataModule
from litgan.extras import wing
from litgan.files import atomic_write, ignore_disk_errors, warn
from litgan.gan import GAN
from litgan.loggers import MetricsFile, WandbOptions, parameter_counts, wandb_run
from litgan.options import check_seed
from litgan.precision import best_precision
from litgan.processes import CHOICE, choose_on_rank_zero, connect, ending_on_ctrl_c, slurm
from litgan.rebuild import search_working_directory


def default_callbacks() -> dict[str, type[Callback]]:
    """The callbacks of every run, by their section in a recipe; the diagnosis only if its wing exists."""
    callbacks: dict[str, type[Callback]] = {"threads": Threads, "realism": Realism, "samples": Samples}
    callbacks["gradients"] = Feedback
    if diagnosis := wing("diagnosis"):
        callbacks["health"] = diagnosis.Diagnosis
    return {**callbacks, "checkpoint": Checkpoint}  # the last one: it saves the state of the others


class Recipe(LightningCLI):
    """Parses a recipe and builds its trainer, GAN and data; the networks get their shapes from the data.

    Args:
        args: the command line behind the verb.
        verb: "fit" makes or continues a run folder and logs; "validate" does neither.

    Raises:
        jsonargparse.ArgumentError: if the recipe does not parse.
    """

    trainer: Trainer
    model: GAN
    datamodule: LightningDataModule
    folder: runs.RunFolder

    def __init__(self, args: list[str], verb: str = "fit") -> None:
        self.verb, self.args = verb, args
        search_working_directory()  # a recipe of one's own names one's own classes
        self.lock, self.discarded = runs.Lock(), False
        self.scratch: TemporaryDirectory[str] | None = None
        try:
            super().__init__(
                GAN,
                LightningDataModule,
                save_config_callback=None,
                trainer_defaults={
                    "precision": best_precision(),
                    "strategy": "adversarial_ddp" if torch.cuda.device_count() > 1 else "auto",
                    "max_epochs": -1,
                    "log_every_n_steps": 50,
                    "num_sanity_val_steps": 0,
                    "enable_model_summary": False,
                    "default_root_dir": runs.ROOT,
                },
                seed_everything_default=0,
                parser_kwargs={"prog": f"litgan {verb}", "exit_on_error": False, **HELP[verb]},
                subclass_mode_model=True,
                subclass_mode_data=True,
                args=args,
                run=False,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )
        except BaseException:
            self.lock.release()
            raise

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, callback in default_callbacks().items():
            parser.add_lightning_class_args(callback, name)
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.add_argument("--project", type=str | None, default=None, help="Short for --wandb.project.")
        help_ = "Checkpoint to resume from; last: the newest of the recipe's runs."
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=help_)
        help_ = "Checkpoint whose weights a new run begins with, as far as they fit."
        parser.add_argument("--init_from", type=str | None, default=None, help=help_)
        # Without a class_path the model is a GAN.
        parser.set_defaults({"model": {"class_path": f"{GAN.__module__}.GAN"}})
        parser.link_arguments("seed_everything", "model.init_args.seed")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        for name in ("sample_shape", "condition"):
            take = partial(self.of_data, name)
            parser.link_arguments("data", f"model.init_args.{name}", take, apply_on="instantiate")

    def of_data(self, name: str, data: LightningDataModule) -> Any:
        """What the GAN takes from its data; for a stock LightningDataModule the recipe's model says it."""
        if isinstance(data, GANDataModule):
            return getattr(data, name)
        given = self.parser.parse_args(["--seed_everything=0", *self.args], defaults=False)  # which is linked
        if "sample_shape" not in given.model.init_args:
            raise ValueError(
                f"{type(data).__name__} is no GANDataModule and does not say what its samples are: give "
                "model.sample_shape, e.g. [3, 64, 64], and for a GAN with classes model.condition."
            )
        return self.config.model.init_args[name]

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)  # without Lightning's warning that `args` is not sys.argv
        check_seed(self.config.seed_everything)

    @property
    def wandb_options(self) -> WandbOptions:
        """How the run appears in W&B."""
        options = WandbOptions(**self.config.wandb.as_dict())
        return replace(options, project=options.project or self.config.project)

    @property
    def is_trial(self) -> bool:
        """Whether Lightning keeps nothing of the run: no checkpoint, no log."""
        return bool(self.config.trainer.fast_dev_run or self.config.trainer.barebones)

    @property
    def name(self) -> str:
        """Name of the first YAML; for a run's config.yaml the name of that run's recipe."""
        first = Path(str((self.config.get("config") or ["recipe"])[0]))
        return first.resolve().parent.parent.name if first.name == "config.yaml" else first.stem

    def before_instantiate_classes(self) -> None:
        wanted, self.init_from = self.config.ckpt_path, self.config.init_from
        if self.verb == "fit" and self.init_from and wanted not in (None, "last"):
            raise ValueError(
                f"--ckpt_path {wanted} resumes a run, --init_from {self.init_from} starts one: give only one."
            )
        self.config.ckpt_path = self.config.init_from = None  # a run of config.yaml is a new run
        self.config_yaml = self.parser.dump(self.config, skip_unset=False)
        self.rank, self.store = connect()
        chosen = choose_on_rank_zero(partial(self.choose_run, wanted), self.rank, self.store)
        self.config.trainer.default_root_dir, checkpoint, self.resumed_at = chosen
        self.folder = runs.RunFolder(Path(self.config.trainer.default_root_dir))
        self.ckpt_path = Path(checkpoint) if checkpoint else None

    def choose_run(self, wanted: str | None) -> tuple[str, str, int]:
        """Folder, checkpoint to resume from or "", and the images that it has seen; locks the folder."""
        root = self.config.trainer.default_root_dir
        folder = runs.new_run(root, self.name)
        checkpoint = runs.find_checkpoint(wanted, root, self.name) if wanted else None
        if wanted and checkpoint is None and self.verb != "fit":
            raise FileNotFoundError(f"No run in {Path(root, self.name)} has a checkpoint: train one first.")
        if checkpoint:
            folder = runs.run_folder_of(checkpoint, folder)
        if self.is_trial:
            self.scratch = TemporaryDirectory(prefix="litgan-", ignore_cleanup_errors=True)
            folder = runs.RunFolder(Path(self.scratch.name, self.name, folder.run_id))
        if self.verb == "fit":
            self.lock.acquire(folder)  # before its checkpoints are read: another process may write them
            if not wanted:  # a run with a given id continues where it stopped
                checkpoint = folder.newest_checkpoint()
        if checkpoint and self.init_from:  # the same command as at the run's start
            warn(f"The run goes on with {checkpoint}, and not anew with --init_from {self.init_from}.")
        seen = runs.images_seen(checkpoint) if checkpoint else 0
        return str(folder.path), str(checkpoint or ""), seen

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        strategy.register()
        config = self._get(self.config_init, "trainer")
        named, kwargs["logger"] = config["logger"], False
        if self.verb == "fit" and not self.is_trial and named is not False:
            if named in (None, True):
                named = wandb_run(self.folder.path, self.wandb_options)
            metrics = MetricsFile(self.folder.path / "metrics.csv", resumed_at=self.resumed_at)
            kwargs["logger"] = [*(named if isinstance(named, list) else [named]), metrics]
        plugins = config["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        verified = self.ckpt_path if self.rank == 0 else None
        kwargs["plugins"] = [*plugins, *slurm(plugins), AtomicCheckpointIO(verified)]
        callbacks = config["callbacks"] or []
        self.first_iteration = FirstIteration(self.save_config)
        own: list[Callback] = [self.first_iteration, Throughput()] if self.verb == "fit" else []
        if config["enable_progress_bar"] is None:  # a bar would fill a log file with one endless line
            kwargs["enable_progress_bar"] = sys.stdout.isatty()
        if config["enable_progress_bar"] or kwargs.get("enable_progress_bar"):
            own.append(Progress())
        elif self.verb == "fit":
            own.append(ProgressLines())
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        kwargs["callbacks"] = [*own, *callbacks]
        if config["benchmark"] is None and torch.cuda.is_available():  # shapes do not change
            kwargs["benchmark"] = not config["deterministic"]
        try:
            if config["barebones"]:  # the Trainer alone
                bare = {"callbacks": callbacks, "log_every_n_steps": 0, "enable_progress_bar": False}
                return Trainer(**{**config, **kwargs, **bare})
            if self.verb == "fit":  # after all other callbacks, because it ends the run; before Checkpoint
                self.trainer_defaults["callbacks"] = Interruption(config["max_time"])
                kwargs["max_time"] = None
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError) as error:
            raise ValueError(f"The trainer cannot be built as the recipe says: {error}") from error

    def after_instantiate_classes(self) -> None:
        resolved = yaml.safe_load(self.parser.dump(self.config, skip_unset=False, skip_link_targets=False))
        shapes = {"sample_shape": list(self.model.sample_shape), "condition": as_plain(self.model.condition)}
        resolved["model"]["init_args"] |= shapes
        if not isinstance(self.datamodule, GANDataModule):  # only the recipe says them
            config = yaml.safe_load(self.config_yaml)
            config["model"]["init_args"] |= shapes
            self.config_yaml = yaml.safe_dump(config, sort_keys=False)
        self.resolved = resolved | {"init_from": self.init_from}
        self.model.recipe = {
            "name": self.name, "run_id": self.folder.run_id, "model": resolved["model"],
            "data": resolved["data"], "realism": resolved["realism"],
            "precision": resolved["trainer"]["precision"], "init_from": self.init_from,
        }  # fmt: skip
        if self.verb == "fit" and self.init_from and not self.ckpt_path:
            checkpoints.take_weights(self.model, self.init_from)
        parallel = isinstance(self.trainer.strategy, strategy.AdversarialDDPStrategy)
        if parallel and self.trainer.world_size == 1:
            warn("trainer.strategy is adversarial_ddp for one device: give --trainer.devices for more.")
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")  # TF32 for float32

    def save_config(self) -> None:
        """Writes config.yaml into the run folder, and logs the recipe."""
        path = self.folder.path / "config.yaml"
        with ignore_disk_errors("The file config.yaml"), atomic_write(path) as partial:
            partial.write_text(self.config_yaml)
        for logger in self.trainer.loggers:
            logger.log_hyperparams({**self.resolved, "parameters": parameter_counts(self.model)})

    def ctrl_c(self) -> AbstractContextManager[None]:
        """Lets Ctrl-C end a rank that waits for another one, before the first iteration."""
        if self.verb != "fit" or self.trainer.world_size == 1:
            return nullcontext()
        code = 0 if launched_by_lightning(self.trainer) else CANCELLED
        return ending_on_ctrl_c(lambda: self.first_iteration.ended, self.discard, code)

    def discard(self, cancelled: bool = True) -> None:
        """Removes the folder that this run made; says once that Ctrl-C came before anything was learned."""
        self.folder.remove(self.lock.made)
        if cancelled and not self.discarded and self.trainer.is_global_zero:
            print("\nStopped by SIGINT in the first iteration: there is nothing to save yet.", flush=True)
        self.discarded = True

    @contextmanager
    def run_context(self) -> Iterator[None]:
        """Makes the run folder; at the end finishes the W&B run and gives up the run's id and its lock.

        A run that fails before its first iteration has ended removes the folder that it made.
        """
        import wandb

        try:
            if self.verb == "fit" and self.trainer.is_global_zero:
                self.folder.create()
            with self.ctrl_c():
                yield
        except Interrupted as stop:
            if self.trainer.is_global_zero:
                print(f"\n{stop}", flush=True)
            if wandb.run is not None and stop.code == STOPPED:  # W&B waits for the process that resumes it
                wandb.run.mark_preempting()
            wandb.finish(exit_code=stop.code)
            raise
        except BaseException as error:
            wandb.finish(exit_code=1)
            if not self.first_iteration.ended:
                self.discard(KeyboardInterrupt in map(type, (error, error.__context__)))
            raise
        else:
            wandb.finish()
        finally:
            if self.scratch:
                self.scratch.cleanup()
            for name in ("LITGAN_RUN_ID", CHOICE):
                os.environ.pop(name, None)
            self.lock.release()


class FirstIteration(Callback):
    """Prints what the data are, and calls a function on rank zero when the first iteration has ended.

    A start that fails before must not change a run folder. It is the first callback, as others may fail.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.ended = False

    def on_fit_start(self, trainer: Trainer, gan: GAN) -> None:
        data = trainer.datamodule
        if trainer.is_global_zero and isinstance(data, GANDataModule):
            print(f"data: {data.summary}", flush=True)

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if gan.iteration_is_complete and not self.ended:
            self.ended = True
            if trainer.is_global_zero:
                with untimed(gan):
                    self.action()


HELP = {
    "fit": {
        "description": "Trains the GAN of a recipe; later files and options win over earlier ones.",
        "usage": "litgan fit --config RECIPE [--config OVERLAY ...] [--ckpt_path last | --init_from CKPT] "
        "[--seeds 0,1,2] [--SECTION.KEY VALUE]",
    },
    "validate": {
        "description": "Measures a checkpoint with its recipe's own Trainer.",
        "usage": "litgan validate --config RECIPE --ckpt_path CHECKPOINT [--SECTION.KEY VALUE ...]",
    },
}
