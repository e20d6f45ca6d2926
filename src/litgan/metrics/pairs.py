"""Metrics of pairs: a fake and the real sample that has the same condition."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

RANGE = 2.0  # of samples, -1 to 1


def image_metrics(*, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Of each pair [N, ...] in [-1, 1]: `l1`; of images [N, C, H, W] also `psnr` in dB and `ssim`.

    SSIM is that of Wang et al. 2004: a Gaussian window of 1.5 pixels, K1 0.01, K2 0.03. Each is [N].

    Raises ValueError if the two sides have different shapes.
    """
    if real.shape != fake.shape:
        shapes = f"{list(fake.shape[1:])} and {list(real.shape[1:])}"
        raise ValueError(f"Fake and real samples of a pair have shapes {shapes}: give both the same.")
    values = {"l1": (real - fake).abs().flatten(1).mean(1)}
    if real.ndim == 4:
        values["psnr"] = peak_signal_noise_ratio(
            fake, real, data_range=RANGE, reduction="none", dim=(1, 2, 3)
        )
        similarity = structural_similarity_index_measure(fake, real, data_range=RANGE, reduction="none")
        values["ssim"] = similarity.reshape(len(real))  # type: ignore[union-attr]
    return values
