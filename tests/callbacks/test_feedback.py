from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image

from litgan import GAN, gradient_flow
from litgan.callbacks import Feedback
from litgan.callbacks.heat_map import heat_map
from litgan.data import Digits, Ring
from litgan.losses import AdversarialLoss, NonSaturating, Relativistic
from litgan.noise import Noise

Make: TypeAlias = Callable[..., Any]  # what a fixture makes things with

STILL = dict.fromkeys(["generator_optimizer", "discriminator_optimizer"], partial(torch.optim.SGD, lr=0.0))


def by_hand(gan: GAN, real: torch.Tensor) -> dict[str, float]:
    """The first iteration's gradients, from the definition: autograd of each sample's own loss."""
    frozen, count = deepcopy(gan), len(real)
    fake = frozen.generator(Noise(gan.seed, 0, 0, count, "generator").normal(4)).detach().requires_grad_()
    real_logits = frozen.discriminator(real) if gan.loss.relativistic else None
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
    trainer = make_trainer(1, callbacks=[Feedback(every=0)], logger=memory, log_every_n_steps=1)
    trainer.fit(gan, datamodule=data)
    for key, value in wanted.items():
        assert memory.values(key) == {batch: pytest.approx(value, rel=1e-6)}, key


def test_only_iterations_that_are_logged_are_listened_to(
    tiny_gan: Make,
    tiny_data: Make,
    make_trainer: Make,
    memory: Any,
) -> None:
    gan = tiny_gan(discriminator_steps=2)
    heard = []

    class Counting(Feedback):
        def record_norms(self, feedback: torch.Tensor) -> None:
            heard.append(gan.images_seen)
            super().record_norms(feedback)

    trainer = make_trainer(7, callbacks=[Counting(every=0)], logger=memory, log_every_n_steps=3)
    trainer.fit(gan, datamodule=tiny_data())
    assert heard == [48, 96], "2 turns of 8 images, iterations 3 and 6"
    assert list(memory.values("gradient/feedback")) == heard
    assert not gan.generator._forward_hooks


def test_the_picture_shows_each_samples_own_feedback(digits_gan: Make) -> None:
    gan = digits_gan().train()
    before = deepcopy(gan.state_dict())
    fake, feedback = Feedback(count=5, seed=1).feedback(gan)
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
    make_trainer(5, callbacks=[Feedback(every=20)]).fit(digits_gan(), datamodule=digits)
    pictures = sorted((tmp_path / "samples").glob("*.png"))
    assert [path.name for path in pictures] == [
        "000000024_feedback.png", "000000040_feedback.png", "gradient_flow.png",
    ]  # fmt: skip
    red, _, blue = np.array(Image.open(pictures[0])).astype(int).transpose(2, 0, 1)
    assert (red > blue).any() and (blue > red).any()
    assert (tmp_path / "samples" / "gradient_flow.png").is_file()


# -- gradient flow


class Copies(Callback):
    """A deep copy of both networks, and of the generator's gradient, after each iteration."""

    def __init__(self) -> None:
        self.networks: dict[int, tuple[torch.nn.Module, torch.nn.Module]] = {}

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        self.networks[gan.images_seen] = deepcopy((gan.generator, gan.discriminator))


def vector(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def test_a_look_logs_what_plain_autograd_finds(
    digits_gan: Make, digits: Digits, make_trainer: Make, memory: Any
) -> None:
    copies = Copies()
    callbacks = [Feedback(every=16, count=6, seed=5), copies]
    gan = digits_gan(loss=Relativistic())
    make_trainer(4, callbacks=callbacks, logger=memory).fit(gan, datamodule=digits)
    previous = None
    for clock in (16, 32):
        generator, discriminator = (network.eval() for network in copies.networks[clock])
        latents = Noise(5, 0, 0, 6, "sample").normal(gan.generator.latent_dim)
        fake = generator(latents).detach().requires_grad_()
        logits = discriminator(fake)
        loss = gan.loss.generator(real=logits.detach().flip(0), fake=logits).sum()
        (feedback,) = torch.autograd.grad(loss, fake)
        row = {key: value[clock] for key in keys(memory) if clock in (value := memory.values(key))}
        assert row["feedback/norm"] == pytest.approx(feedback.flatten(1).norm(dim=1).mean().item(), rel=1e-5)
        seen = gradient_flow.trace_gradients(generator, discriminator, gan.loss, latents)
        rows = {
            f"gradient_flow/{key}": norm.item()
            for key, norm in seen.gradient_norms().items()
            if key != "samples"
        }
        assert {key: row[key] for key in rows} == pytest.approx(rows, rel=1e-5)
        for name, now, before in zip(
            ("generator", "discriminator"), copies.networks[clock], copies.networks[clock - 8], strict=True
        ):
            ratio = (vector(now) - vector(before)).norm() / vector(before).norm()
            assert row[f"update/{name}"] == pytest.approx(ratio.item(), rel=1e-4)
        if previous is None:
            assert "feedback/cosine" not in row
        else:
            cosine = torch.cosine_similarity(previous.flatten(1), feedback.flatten(1)).mean()
            assert row["feedback/cosine"] == pytest.approx(cosine.item(), abs=1e-5)
        previous = feedback


def keys(memory: Any) -> set[str]:
    return {key for row in memory.rows for key in row}


def test_a_look_tells_how_surely_the_batch_is_told_apart(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, memory: Any
) -> None:
    gan, data = tiny_gan(**STILL), tiny_data()
    real = next(iter(data.train_dataloader()))[0]
    make_trainer(1, callbacks=[Feedback(every=8)], logger=memory).fit(gan, datamodule=data)
    fake = gan.generator(Noise(0, 0, 0, 8, "sample").normal(gan.generator.latent_dim))
    with torch.no_grad():
        wanted = gradient_flow.logit_statistics(real=gan.discriminator(real), fake=gan.discriminator(fake))
    found = {key: memory.values(f"logits/{key}")[8] for key in wanted}
    assert found == pytest.approx({key: value.item() for key, value in wanted.items()}, abs=1e-6)
    assert memory.values("gradient/below_eps") == {8: 0.0}
    assert memory.values("update/generator") == {8: 0.0}


def test_the_history_survives_a_resume(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, memory: Any, tmp_path: Path
) -> None:
    def run(iterations: int, ckpt_path: Path | None = None) -> Feedback:
        gradients = Feedback(every=8, count=4)
        trainer = make_trainer(iterations, callbacks=[gradients], logger=memory)
        trainer.fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "cut.ckpt", weights_only=False)
        return gradients

    whole, cosines = run(4), memory.values("feedback/cosine")
    memory.rows.clear()
    run(2)
    resumed = run(4, tmp_path / "cut.ckpt")
    assert [clock for clock, _ in resumed.history] == [8, 16, 24, 32]
    assert resumed.history == whole.history
    assert memory.values("feedback/cosine") == cosines and list(cosines) == [16, 24, 32]


def test_between_looks_nothing_is_computed(
    tiny_gan: Make, tiny_data: Make, make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gan, at = tiny_gan(discriminator_steps=2), []
    original = gradient_flow.clone_params
    monkeypatch.setattr(
        gradient_flow, "clone_params", lambda network: (at.append(gan.images_seen), original(network))[1]
    )
    looked = []

    class Watching(Feedback):
        def measure(self, *arguments: Any) -> None:
            looked.append(gan.images_seen)
            super().measure(*arguments)

    make_trainer(9, callbacks=[Watching(every=48)]).fit(gan, datamodule=tiny_data())
    assert looked == [48, 96, 144] and at == [40, 40, 88, 88, 136, 136], "before the turn that ends each"


# -- the heat map


def test_the_heat_map_shows_rows_columns_and_what_is_not_there() -> None:
    rows = ["discriminator/head", "samples", "generator/latents"]
    history = [(100 * i, dict(zip(rows, (1.0, 10.0 ** (-2 * i), 0.0), strict=True))) for i in range(1, 4)]
    picture = heat_map(history)
    assert picture.dtype == torch.uint8 and picture.shape[2] == 3
    middle = picture[:, 240:860]  # between the names of the rows and the colour bar
    colours = {tuple(pixel) for pixel in middle.reshape(-1, 3)[::7].tolist()}
    assert (211, 211, 211) in colours, "no feedback is grey"
    taller = heat_map([(1, {f"generator/{i}": 1.0 for i in range(20)})])
    assert taller.shape[0] > picture.shape[0] and taller.shape[1] == picture.shape[1]
    assert heat_map([(1, dict.fromkeys(rows, 0.0)), (2, dict.fromkeys(rows, float("nan")))]).shape


def test_stronger_feedback_is_brighter() -> None:
    history = [(1, {"discriminator/a": 1.0, "samples": 1e-3, "generator/b": 1e-6})]
    picture = heat_map(history).float()
    height = picture.shape[0]
    places = [int(60 + (height - 120) * (i + 0.5) / 3) + 4 for i in range(3)]
    brightness = [picture[place, 500].mean().item() for place in places]
    assert brightness == sorted(brightness, reverse=True) and brightness[0] > brightness[2] + 100
