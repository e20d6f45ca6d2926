"""Consistency, diversity and path length: closed forms, limits, and what they remember."""

from __future__ import annotations

import pytest
import torch
from shared.penalties import Linear, LinearGenerator, call, noise, samples

from litgan.augment import Augmentation
from litgan.losses import NonSaturating
from litgan.noise import Noise
from litgan.penalties import Context
from litgan.zoo import BalancedConsistency, LatentConsistency, LatentDiversity, PathLength, StyleGAN2Generator


def of_generator(generator, noise: Noise) -> Context:
    """What a generator's penalty is called with: no samples."""
    return Context(generator, None, noise=noise)


class Shifted(Augmentation):
    """Adds `by` times a random number from 1 to 2, one for each value of the last axis."""

    def __init__(self, by: float, num_uniforms: int = 1) -> None:
        super().__init__()
        self.by, self.num_uniforms = by, num_uniforms

    def forward(self, samples, uniforms):
        return samples + self.by * (uniforms.view(len(samples), *[1] * (samples.ndim - 2), -1) + 1)


def test_consistency_is_the_squared_gap_of_both_sides():
    critic, sides = Linear(3, 4), samples(3, 4, count=64)
    with torch.no_grad():
        critic.weight += 0.5
    assert call(BalancedConsistency(Shifted(0.0)), critic, **sides).abs().max() < 1e-20
    draws = [noise(64).stream(f"bcr/{side}").uniform(1).double() for side in ("real", "fake")]
    gap = sum(((draw[:, 0] + 1) * critic.weight.sum()).square() for draw in draws)
    # logits 3 d and -d move by 3 and -1 times the gap: mean square 5
    torch.testing.assert_close(
        call(BalancedConsistency(Shifted(1.0)), critic, **sides), 5 * gap, rtol=1e-6, atol=0
    )


def test_latent_consistency_is_the_squared_gap_after_a_step_in_the_latents():
    critic, generator, update = Linear(3, 4), LinearGenerator(5, 3, 4), noise(64)
    fake = generator(update.normal(5)).detach()
    value = call(LatentConsistency(sigma=0.1), critic, real=fake, fake=fake, generator=generator)
    step = generator(0.1 * update.stream("near").normal(5)).flatten(1) @ critic.weight.flatten()
    # logits 3 d and -d move by 3 and -1 times the step: mean square 5
    torch.testing.assert_close(value, 5 * step.square(), rtol=1e-4, atol=1e-7)
    value.mean().backward()
    assert critic.weight.grad.abs().sum() > 0 and generator.matrix.grad is None


def test_latent_consistency_augments_perturbed_fakes_as_the_fakes(tiny_gan):
    """Without a step in the latents the two are equal only if they are augmented alike."""
    gan = tiny_gan(loss=NonSaturating(), penalties=[LatentConsistency(sigma=0.0)], augment=Shifted(1.0, 2))
    update = Noise(0, 0, 0, 8, "discriminator")
    _, logs = gan.discriminator_loss(torch.randn(8, 2), None, update)
    assert logs["penalty/zcr"].item() == 0
    gan.penalties = (LatentConsistency(sigma=0.1),)
    _, logs = gan.discriminator_loss(torch.randn(8, 2), None, update)
    assert logs["penalty/zcr"].item() > 0


def test_latent_diversity_of_a_linear_generator():
    generator = LinearGenerator(5, 2, 3)
    value = LatentDiversity(sigma=0.1)(of_generator(generator, noise(8)))
    step = 0.1 * noise(8).stream("zcr_generator").normal(5).double() @ generator.matrix.T
    torch.testing.assert_close(value, -step.square().mean(1), rtol=1e-4, atol=1e-7)


def test_path_length_of_a_linear_generator_is_its_closed_form():
    """||A^T y|| with y ~ N(0, I) / sqrt(pixels), the same for all latents."""
    generator, penalty = LinearGenerator(5, 2, 4, 4), PathLength(share=1.0)
    probe = noise(8).stream("path_length").normal(2, 4, 4).double().flatten(1) / 4.0
    lengths = (probe @ generator.matrix).norm(dim=1)
    measured = penalty.lengths(of_generator(generator, noise(8)))
    torch.testing.assert_close(measured.double(), lengths, rtol=1e-5, atol=0)
    value = penalty(of_generator(generator, noise(8)))
    torch.testing.assert_close(penalty.mean.double(), 0.01 * lengths.mean())
    torch.testing.assert_close(value.double(), (lengths - 0.01 * lengths.mean()).square(), rtol=1e-5, atol=0)


def test_path_length_converges_to_the_mean_over_a_share_of_the_batch():
    generator, penalty = LinearGenerator(5, 2, 4, 4), PathLength(share=0.5, decay=0.5)
    context = of_generator(generator, noise(9))
    for update in range(30):
        assert len(penalty(context)) == 5, update
    lengths = penalty.lengths(context)
    torch.testing.assert_close(penalty.mean, lengths.mean())


def test_path_length_runs_through_the_styles_of_stylegan2():
    torch.manual_seed(0)
    generator = StyleGAN2Generator((1, 8, 8), latent_dim=8, style_dim=8, mapping_layers=2, widths=[8, 8])
    penalty = PathLength(share=1.0)
    penalty(of_generator(generator, noise(4))).mean().backward()
    trained = [name for name, weight in generator.named_parameters() if weight.grad is not None]
    assert any(name.startswith("synthesis") for name in trained)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="give a part of the batch"):
        PathLength(share=0.0)
