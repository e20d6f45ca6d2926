from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from PIL import Image

from litgan import GAN
from litgan.callbacks import Gradients
from litgan.data import Digits, Ring
from litgan.losses import AdversarialLoss, NonSaturating, Relativistic
from litgan.noise import Noise

Make: TypeAlias = Callable[..., Any]  # what a fixture makes things with

STILL = dict.fromkeys(["generator_optimizer", "discriminator_optimizer"], partial(torch.optim.SGD, lr=0.0))


def by_hand(gan: GAN, real: torch.Tensor) -> dict[str, float]:
    """The first iteration's gradients, from the definition: autograd of each sample's own loss."""
    frozen, count = deepcopy(gan), len(real)
    fake = frozen.generator(Noise(gan.seed, 0, 0, count, "generator").normal(4)).detach().requires_grad_()
    real_logits = frozen.discriminator(real) if gan.loss.pairs else None
    losses = gan.loss.generator(real=real_logits, fake=frozen.discriminator(fake))
    each = [torch.autograd.grad(loss, fake, retain_graph=True)[0][i] for i, loss in enumerate(losses)]
    feedback = torch.stack([gradient.double().norm() for gradient in each]).mean()

    made = frozen.generator(Noise(gan.seed, 0, 0, count, "generator").normal(4))
    objective = gan.loss.generator(real=real_logits, fake=frozen.discriminator(made)).mean()
    of_generator = torch.autograd.grad(objective, list(frozen.generator.parameters()))

    shown = frozen.generator(Noise(gan.seed, 0, 0, count, "discriminator").normal(4)).detach()
    objective = gan.loss.discriminator(
        real=frozen.discriminator(real), fake=frozen.discriminator(shown)
    ).mean()
    of_discriminator = torch.autograd.grad(objective, list(frozen.discriminator.parameters()))

    def norm(gradients: tuple[torch.Tensor, ...]) -> float:
        return torch.cat([one.flatten().double() for one in gradients]).norm().item()

    return {
        "gradient/feedback": feedback.item(),
        "gradient/generator": norm(of_generator),
        "gradient/discriminator": norm(of_discriminator),
    }


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=["NonSaturating", "Relativistic"])
@pytest.mark.parametrize(("batch", "micro_batches"), [(8, 1), (32, 1), (32, 4)])
def test_logged_norms_are_those_of_plain_autograd(
    loss: AdversarialLoss, batch: int, micro_batches: int, tiny_gan: Make,
    make_trainer: Make, memory: Any,
) -> None:  # fmt: skip
    gan, data = tiny_gan(loss=loss, micro_batches=micro_batches, **STILL), Ring(samples=64, batch_size=batch)
    real = next(iter(data.train_dataloader()))[0]
    wanted = by_hand(gan, real)
    trainer = make_trainer(1, callbacks=[Gradients(every=0)], logger=memory, log_every_n_steps=1)
    trainer.fit(gan, datamodule=data)
    for key, value in wanted.items():
        assert memory.values(key) == {batch: pytest.approx(value, rel=1e-6)}, key


def test_only_iterations_that_are_logged_are_listened_to(
    tiny_gan: Make,
    tiny_data: Make,
    make_trainer: Make,
    memory: Any,
) -> None:
    gan = tiny_gan(discriminator_turns=2)
    heard = []

    class Counting(Gradients):
        def receive(self, feedback: torch.Tensor) -> None:
            heard.append(gan.images_seen)
            super().receive(feedback)

    trainer = make_trainer(7, callbacks=[Counting(every=0)], logger=memory, log_every_n_steps=3)
    trainer.fit(gan, datamodule=tiny_data())
    assert heard == [48, 96], "2 turns of 8 images, iterations 3 and 6"
    assert list(memory.values("gradient/feedback")) == heard
    assert not gan.generator._forward_hooks


def test_the_picture_shows_each_samples_own_feedback(digits_gan: Make) -> None:
    gan = digits_gan().train()
    before = deepcopy(gan.state_dict())
    fake, feedback = Gradients(count=5, seed=1).feedback(gan)
    assert gan.generator.training and gan.discriminator.training
    assert all(torch.equal(value, before[key]) for key, value in gan.state_dict().items())
    assert all(parameter.grad is None for parameter in gan.parameters())
    gan.eval()
    for index in range(5):
        alone = fake[index : index + 1].requires_grad_()
        loss = gan.loss.generator(real=None, fake=gan.discriminator(alone)).squeeze()
        gradient = torch.autograd.grad(loss, alone)[0][0]
        torch.testing.assert_close(feedback[index], gradient, rtol=1e-4, atol=1e-9)


def test_pictures_follow_the_images(
    digits_gan: Make, digits: Digits, make_trainer: Make, tmp_path: Path
) -> None:
    make_trainer(5, callbacks=[Gradients(every=20)]).fit(digits_gan(), datamodule=digits)
    pictures = sorted((tmp_path / "samples").glob("*.png"))
    assert [path.name for path in pictures] == [
        "000000024_feedback.png", "000000040_feedback.png", "telescope.png",
    ]  # fmt: skip
    red, _, blue = np.array(Image.open(pictures[0])).astype(int).transpose(2, 0, 1)
    assert (red > blue).any() and (blue > red).any()
