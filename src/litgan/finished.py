"""The finished generator: its averages, and what is drawn from them."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from litgan.ema import EMA
from litgan.noise import Noise
from litgan.sampling import draw_samples


class Finished(LightningModule):
    """A generator with its running averages, to draw from.

    What is sampled and measured is `ema`; `averages` are others, by half-life in images, to choose from after
    training (Karras et al. 2024, EDM2, section 3).
    """

    generator: nn.Module
    ema: EMA
    images_seen: int
    averages: nn.ModuleDict
    num_classes: int

    def sample(
        self,
        count: int,
        seed: int = 0,
        labels: Tensor | Sequence[int] | None = None,
        *,
        first: int = 0,
        truncation: float | None = None,
        raw: bool = False,
        half_life: int | None = None,
    ) -> Tensor:
        """Samples [count, *sample_shape] in the data's range, of the averaged generator.

        Sample i depends on (seed, first + i) alone: the first 64 of 1,000 are the 64 of 64.

        Args:
            count: how many.
            seed: of the latents.
            labels: class of each sample, repeated as needed; None takes all classes in turn.
            first: index of the first sample.
            truncation: latents are drawn from the normal cut off at +- this value (Brock et al. 2019,
                BigGAN, section 3.1), or styles pulled to their mean by it (StyleGAN2: psi); None for neither.
            raw: take the weights of the last step, not their average.
            half_life: take the average of `more_half_lives` with this one; None for the run's own.

        Raises:
            ValueError: if a label is not a class, `truncation` is not positive, or there is no such average.
        """
        network = self.generator if raw else self.average(half_life)
        noise = Noise(seed, 0, first, count, "sample", self.device)
        return draw_samples(network, noise, labels, num_classes=self.num_classes, truncation=truncation)

    def update_averages(self, *, images: int) -> None:
        """Moves every average towards the generator, after `images` more."""
        for ema in (self.ema, *self.averages.children()):
            ema.update(self.generator, images_seen=self.images_seen, images=images)  # type: ignore[operator]

    def average(self, half_life: int | None = None) -> nn.Module:
        """The averaged generator: the run's own, or that of `more_half_lives` with this half-life.

        Raises:
            ValueError: if the run kept no such average.
        """
        if half_life is None:
            return self.ema.average
        if str(half_life) not in self.averages:
            known = ", ".join(self.averages) or "none: train with model.more_half_lives"
            raise ValueError(f"There is no average of half-life {half_life}; there are {known}.")
        return self.averages[str(half_life)].average  # type: ignore[return-value]
