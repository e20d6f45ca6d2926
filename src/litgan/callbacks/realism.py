"""Distances between the generator's samples and the data during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from litgan.callbacks.throughput import untimed
from litgan.condition import choose_classes, has_pairs
from litgan.data.stock import data_of, eval_conditions
from litgan.gan import GAN
from litgan.metrics import FeatureExtractor, Report, evaluate, load_extractor
from litgan.options import check_counts
from litgan.sampling import averaged_generator
from litgan.updates import as_tuple


class Realism(Callback):
    """Evaluates the EMA generator before the first step, every `every` images, and at the end.

    Logs the values of `litgan.metrics.evaluate`: `metric/fid` (or `metric/fd_<extractor>`), `metric/kid`,
    `metric/precision`, `metric/recall` and others; where samples are made from tensors also `metric/psnr`,
    `metric/ssim` and `metric/l1` of the pairs, and of a tokenizer `metric/perplexity` of its codes. The
    progress bar shows the distance, and `best.ckpt` has its lowest value. The protocol is logged with the
    hyperparameters.

    Args:
        extractor: "inception", "inception-bf16" (faster, and no FID), "digits", "fashion", or a class such as
            litgan.sound.SoundStatistics or one of your own.
        every: images between two evaluations, 0 for never.
        count: fakes.
        real_count: reals; "all" of the split; None for `count` of them, or as many as there are.
        split: of the reals.
        batch_size: samples in a forward pass of the extractor.
        raw: evaluate the weights of the last step, not their EMA.
        pair_metrics: further ones where samples are made from tensors, such as litgan.metrics.LPIPS; see
            `litgan.metrics.evaluate`.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | str = "inception",  # the parser reports the first one's errors
        every: int = 200_000,
        count: int = 10_000,
        split: str = "train",
        batch_size: int = 250,
        raw: bool = False,
        real_count: int | Literal["all"] | None = None,
        pair_metrics: nn.Module | Sequence[nn.Module] = (),
    ) -> None:
        check_counts("realism.", least=0, every=every)
        check_counts("realism.", count=count, batch_size=batch_size)
        self.extractor, self.every, self.count = extractor, every, count
        self.split, self.batch_size, self.raw, self.real_count = split, batch_size, raw, real_count
        self.pair_metrics = as_tuple(pair_metrics)
        self.report: Report | None = None
        self.measured_at = -1  # images_seen
        self._network: FeatureExtractor | None = None

    @property
    def monitor(self) -> str | None:
        """The key of the distance, once measured."""
        return next(iter(self.report.values)) if self.report else None

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        if self.every and gan.images_seen == 0:
            self.measure(trainer, gan)

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if gan.is_due(self.every):
            self.measure(trainer, gan)

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        if self.every and self.measured_at != gan.images_seen:
            self.measure(trainer, gan)

    def on_validation_epoch_end(self, trainer: Trainer, gan: GAN) -> None:
        if trainer.state.fn == "validate":
            split = getattr(data_of(trainer), "split", None)  # of a plain loader: the one that is running
            gan.log_dict(self.measure(trainer, gan, split).values, sync_dist=True)

    def on_test_epoch_end(self, trainer: Trainer, gan: GAN) -> None:
        gan.log_dict(self.measure(trainer, gan, "test").values, sync_dist=True)

    def measure(self, trainer: Trainer, gan: GAN, split: str | None = None) -> Report:
        """Evaluates the GAN on all ranks, and logs; `split` instead of the callback's."""
        with untimed(gan):
            self.report = evaluate_gan(
                gan, data_of(trainer), self.network(gan), ema=not self.raw, count=self.count,
                real_count=self.real_count, batch_size=self.batch_size, split=split or self.split,
                rank=trainer.global_rank, world_size=trainer.world_size, pair_metrics=self.pair_metrics,
            )  # fmt: skip
            self.measured_at = gan.images_seen
            gan.log_scalars(self.report.values)
            protocol = {**self.report.protocol, "weights": "raw" if self.raw else "ema"}
            for logger in trainer.loggers:
                logger.log_hyperparams({"protocol": protocol})
        return self.report

    def network(self, gan: GAN) -> FeatureExtractor:
        """The extractor, on the GAN's device; not a part of the GAN, whose checkpoints would contain it."""
        if self._network is None:
            self._network = load_extractor(self.extractor)
        return self._network.to(gan.device)


def evaluate_gan(
    gan: GAN, data: Any, extractor: FeatureExtractor, *, ema: bool | int = True, split: str, **options: Any
) -> Report:
    """`litgan.metrics.evaluate` of samples for the conditions of a split; `ema` as in `GAN.sample`."""

    def sample(first: int, count: int) -> Tensor:
        condition = eval_conditions(gan, data, count, split=split, first=first)
        return gan.sample(count, condition=condition, first=first, ema=ema)

    return evaluate(
        sample, data, extractor, split=split, device=gan.device, pairs=has_pairs(gan.condition, data),
        generator=averaged_generator(gan, ema),
        labels=lambda first, count: choose_classes(None, first, count, gan.num_classes), **options,
    )  # fmt: skip
