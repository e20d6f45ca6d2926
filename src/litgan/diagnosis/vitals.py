"""The vital signs of a game, measured: `litgan.diagnosis.verdicts` says what each is, and judges by them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from litgan import telescope
from litgan.callbacks.realism import Realism
from litgan.files import warn
from litgan.gan import GAN, Batch
from litgan.noise import Noise
from litgan.sampling import choose_classes

AFFORDABLE = 64  # pixels a side: what extractors of larger pictures cost on a CPU, a look is not worth


class Examination:
    """Measures the vital signs on fixed latents and fixed reals, both networks in evaluation mode.

    Args:
        count: of fakes, and of reals of each split where it has as many.
        seed: of the latents.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.before: list[list[Tensor]] = []  # the generator before its last step and the one before that
        self.reals: dict[str, Batch] = {}  # by split
        self.spread: Tensor | None = None  # mean distance between reals

    def remember(self, gan: GAN) -> None:
        """Called before each of the last two iterations that lead to a look, for `step` and `turning`."""
        self.before = [*self.before[-1:], telescope.copies(gan.generator)]

    def forget(self) -> None:
        self.before = []

    @torch.no_grad()
    def __call__(self, trainer: Trainer, gan: GAN, size: int) -> dict[str, float]:
        """The vital signs, in one transfer; `size` samples go through the networks at once."""
        real, unseen = (self.scores(trainer, gan, split, size) for split in ("train", "test"))
        paired = real[torch.arange(self.count) % len(real)]  # one to each fake, of however few
        samples, fake, feedback = self.fakes(gan, paired, size)
        loss, logits = gan.loss, {"real": paired, "fake": fake}
        signs = {
            "derivative": telescope.derivative_share(loss.generator, **logits, of=["fake"]),
            "doubt": telescope.derivative_share(loss.discriminator, **logits, of=["real", "fake"]),
            "gradient": telescope.gradient_use(gan.trainer.optimizers[0])[1],
            "feedback": feedback,
            "separation": telescope.separation(real=real, fake=fake),
            "diversity": self.diversity(trainer, gan, samples),
            "step": telescope.step_ratio(self.before[-1], gan.generator),
            "turning": self.turning(gan),
            **sizes(gan),
            "logits": torch.cat([real, fake]).square().mean().sqrt(),
            **(overfitting(train=real, unseen=unseen, fake=fake) if len(unseen) else {}),
        }
        return dict(zip(signs, torch.stack([sign.float() for sign in signs.values()]).tolist(), strict=True))

    def scores(self, trainer: Trainer, gan: GAN, split: str, size: int) -> Tensor:
        """Logits [N, K] of the fixed reals of a split; none where there is no such split."""
        samples, labels = self.fixed_reals(trainer, gan, split)
        with telescope.evaluating(gan.discriminator):
            logits = [
                gan.discriminator(samples[part], None if labels is None else labels[part])
                for part in slices(len(samples), size)
            ]
        return torch.cat(logits).float() if logits else torch.empty(0, 1)

    def fixed_reals(self, trainer: Trainer, gan: GAN, split: str) -> Batch:
        """The first of a metric's reals, read at the first look; kept on the device."""
        if split not in self.reals:
            data, samples, labels = trainer.datamodule, torch.empty(0), None
            if split in data.splits:
                try:
                    batches = list(data.real_batches(min(self.count, data.size(split)), split=split))
                    samples = torch.cat([batch for batch, _ in batches]).to(gan.device)
                    if gan.num_classes:
                        labels = torch.cat([label for _, label in batches]).to(gan.device)
                except (OSError, ValueError, RuntimeError) as error:
                    if split == "train":
                        raise
                    warn(f"The split {split!r} cannot be read ({error}): MEMORISING is not watched for.")
            self.reals[split] = samples, labels
        return self.reals[split]

    def fakes(self, gan: GAN, paired: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Samples of the fixed latents, their logits [N, K], and the mean norm of their feedback.

        `paired` are logits of as many reals, for losses that compare.
        """
        latents = Noise(self.seed, 0, 0, self.count, "sample", gan.device).normal(gan.generator.latent_dim)  # type: ignore[arg-type]
        labels = choose_classes(None, 0, self.count, gan.num_classes)
        labels = None if labels is None else labels.to(gan.device)
        looks = [
            telescope.look(
                gan.generator, gan.discriminator, gan.loss, latents[part],
                None if labels is None else labels[part], real_logits=paired[part],
            ) for part in slices(self.count, size)
        ]  # fmt: skip
        samples, logits, feedback = (
            torch.cat([getattr(look, name) for look in looks]) for name in ("samples", "logits", "feedback")
        )
        return samples, logits.float(), telescope.mean_norm(feedback)

    def diversity(self, trainer: Trainer, gan: GAN, fake: Tensor) -> Tensor:
        """Distance between fakes over that between reals, of the run's features where they cost little."""
        features = self.features(trainer, gan)
        if self.spread is None:
            self.spread = mean_distance(features(self.fixed_reals(trainer, gan, "train")[0]))
        return mean_distance(features(fake)) / self.spread.clamp_min(1e-30)

    def features(self, trainer: Trainer, gan: GAN) -> Any:
        """Samples to vectors [N, D]: as the realism callback sees them, or as they are."""
        realism = next((one for one in trainer.callbacks if isinstance(one, Realism) and one.every), None)
        if realism is not None:
            extractor = realism.network(gan)
            extractor.settle(trainer.datamodule)
            if gan.device.type != "cpu" or extractor.size <= AFFORDABLE:
                return extractor
        return lambda samples: samples.float().flatten(1)

    def turning(self, gan: GAN) -> Tensor:
        """Cosine between the last two steps of the generator; 0 where only one has been seen."""
        if len(self.before) < 2:
            return torch.zeros((), device=gan.device)
        earlier = torch._foreach_sub(self.before[1], self.before[0])
        return telescope.steps_cosine(earlier, telescope.step(self.before[1], gan.generator))


def sizes(gan: GAN) -> dict[str, Tensor]:
    """The norm of each network's weights."""
    return {
        f"weights_{name}": telescope.total_norm(telescope.weights(network))
        for name, network in (("generator", gan.generator), ("discriminator", gan.discriminator))
    }


def overfitting(*, train: Tensor, unseen: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """What a discriminator knows of its training samples alone, from logits [N, K].

    `overfitting` is r_v of Karras et al. 2020 (ADA), eq. 1: 0 where unseen reals score as those seen, 1 where
    they score as fakes. `overfitting_sigmas` is its numerator in standard errors.
    """
    train, unseen, fake = train.float().mean(1), unseen.float().mean(1), fake.float().mean(1)
    ahead = train.mean() - unseen.mean()
    error = sum(side.var(correction=0) / len(side) for side in (train, unseen)) ** 0.5
    gap = (train.mean() - fake.mean()).clamp_min(1e-3 * ahead.abs() + 1e-12)
    return {"overfitting": ahead / gap, "overfitting_sigmas": ahead / error.clamp_min(1e-12)}


def mean_distance(features: Tensor) -> Tensor:
    """Mean Euclidean distance between two of N vectors [N, D]; 0 for a single one."""
    return torch.pdist(features).sum() / max(1, len(features) * (len(features) - 1) // 2)


def slices(count: int, size: int) -> list[slice]:
    """The parts of so many samples that go through a network at once."""
    return [slice(at, at + size) for at in range(0, count, size)]
