from __future__ import annotations

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image
from shared.memory import check_halving
from torch import nn

from litgan import GAN, gradient_flow
from litgan.callbacks import Feedback
from litgan.callbacks.heat_map import heat_map
from litgan.data import Ring
from litgan.losses import NonSaturating, Relativistic
from litgan.noise import Noise
from litgan.penalties import GeneratorPenalty

STILL = dict.fromkeys(["generator_optimizer", "discriminator_optimizer"], partial(torch.optim.SGD, lr=0.0))


def gradients_by_definition(gan, real):
    """The first iteration's gradient norms: autograd of each sample's own loss."""
    gan, count = deepcopy(gan), len(real)
    loss, discriminator = gan.loss, gan.discriminator

    def fakes(name):
        return gan.generator(Noise(gan.seed, 0, 0, count, name).normal(4))

    def norm(value, network):
        gradients = torch.autograd.grad(value, list(network.parameters()))
        return torch.cat([gradient.flatten().double() for gradient in gradients]).norm().item()

    fake = fakes("generator")
    real_logits = discriminator(real) if loss.relativistic else None
    losses = loss.generator(real=real_logits, fake=discriminator(fake))
    each = [torch.autograd.grad(one, fake, retain_graph=True)[0][i] for i, one in enumerate(losses)]
    generator_norm = norm(losses.mean(), gan.generator)
    shown = fakes("discriminator").detach()
    value = loss.discriminator(real=discriminator(real), fake=discriminator(shown)).mean()
    return {
        "gradient/feedback": torch.stack([gradient.double().norm() for gradient in each]).mean().item(),
        "gradient/generator": generator_norm,
        "gradient/discriminator": norm(value, discriminator),
    }


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=["NonSaturating", "Relativistic"])
@pytest.mark.parametrize(("batch", "micro_batches"), [(8, 1), (32, 1), (32, 4)])
def test_logged_norms_are_those_of_plain_autograd(loss, batch, micro_batches, tiny_gan, make_trainer, memory):
    gan, data = tiny_gan(loss=loss, micro_batches=micro_batches, **STILL), Ring(samples=64, batch_size=batch)
    expected = gradients_by_definition(gan, next(iter(data.train_dataloader()))[0])
    trainer = make_trainer(1, callbacks=[Feedback(every=0)], logger=memory, log_every_n_steps=1)
    trainer.fit(gan, datamodule=data)
    for key, value in expected.items():
        assert memory.values(key) == {batch: pytest.approx(value, rel=1e-6)}, key


class Spread(GeneratorPenalty):
    """Draws fakes of its own, with gradients."""

    name = "spread"

    def __call__(self, context):
        return -context.generator(context.latents() + 1.0, context.condition).square().sum(1)


class ThreeNetworks(GAN):
    """Also trains an encoder through the generator."""

    def __init__(self, **options):
        super().__init__(**options)
        self.encoder = nn.Linear(2, 4)

    def configure_optimizers(self):
        return [*super().configure_optimizers(), torch.optim.SGD(self.encoder.parameters(), lr=0.0)]

    def training_step(self, batch, batch_idx):
        logs = super().training_step(batch, batch_idx)
        return logs | self.update("encoder", self.optimizers()[2], self.encoder_loss, *batch)

    def encoder_loss(self, real, condition, noise):
        return 100 * (self.generator(self.encoder(real)) - real).square().mean(), {}


def test_norms_are_named_by_the_network_and_the_feedback_is_of_the_generators_loss_alone(
    tiny_gan, tiny_data, make_trainer, memory
):
    for kind, options in ((GAN, {}), (ThreeNetworks, {"generator_penalties": [Spread(10.0, 1)]})):
        gan = tiny_gan(kind, micro_batches=2, **STILL, **options)
        trainer = make_trainer(1, callbacks=[Feedback(every=0)], logger=memory, log_every_n_steps=1)
        trainer.fit(gan, datamodule=tiny_data())
    plain, extended = (row for row in memory.rows if "gradient/feedback" in row)
    assert extended["gradient/feedback"] == plain["gradient/feedback"]
    assert extended["gradient/discriminator"] == plain["gradient/discriminator"]
    assert extended["gradient/generator"] != plain["gradient/generator"]
    norm = nn.utils.get_total_norm([weight.grad for weight in gan.encoder.parameters()]).item()
    assert extended["gradient/encoder"] == pytest.approx(norm) and "gradient/encoder" not in plain


def test_only_logged_iterations_are_hooked_and_only_due_ones_traced(
    tiny_gan, tiny_data, make_trainer, memory, monkeypatch
):
    gan, hooked, traced, cloned = tiny_gan(discriminator_steps=2), [], [], []
    clone = gradient_flow.clone_params
    monkeypatch.setattr(
        gradient_flow, "clone_params", lambda network: (cloned.append(gan.images_seen), clone(network))[1]
    )

    class Counting(Feedback):
        def record_norms(self, gan, feedback):
            hooked.append(gan.images_seen)
            super().record_norms(gan, feedback)

        def measure(self, *arguments):
            traced.append(gan.images_seen)
            return super().measure(*arguments)

    trainer = make_trainer(7, callbacks=[Counting(every=48)], logger=memory, log_every_n_steps=3)
    trainer.fit(gan, datamodule=tiny_data())
    assert hooked == [48, 96] == list(memory.values("gradient/feedback")), "16 images an iteration"
    assert not gan.generator._forward_hooks
    assert traced == [48, 96] and cloned == [40, 40, 88, 88], "before the last discriminator step of each"


def test_the_trace_has_each_samples_own_feedback(digits_gan):
    gan = digits_gan().train()
    before = deepcopy(gan.state_dict())
    trace = Feedback(count=5, seed=1).trace(gan)
    assert gan.generator.training and gan.discriminator.training
    assert all(torch.equal(value, before[key]) for key, value in gan.state_dict().items())
    assert all(parameter.grad is None for parameter in gan.parameters())
    gan.eval()
    for index in range(5):
        alone = trace.samples[index : index + 1].requires_grad_()
        loss = gan.loss.generator(real=None, fake=gan.discriminator(alone)).squeeze()
        (gradient,) = torch.autograd.grad(loss, alone)
        torch.testing.assert_close(trace.feedback[index], gradient[0], rtol=1e-4, atol=1e-9)


class Copies(Callback):
    """A deep copy of both networks after each iteration."""

    def __init__(self):
        self.networks = {}

    def on_train_batch_end(self, trainer, gan, *_):
        self.networks[gan.images_seen] = deepcopy((gan.generator, gan.discriminator))


def test_a_trace_logs_what_plain_autograd_finds(digits_gan, digits, make_trainer, memory, tmp_path):
    copies, gan = Copies(), digits_gan(loss=Relativistic())
    make_trainer(5, callbacks=[Feedback(every=20, count=6, seed=5), copies], logger=memory).fit(
        gan, datamodule=digits
    )
    previous = None
    for clock in (24, 40):
        networks = generator, discriminator = [network.eval() for network in copies.networks[clock]]
        latents = Noise(5, 0, 0, 6, "sample").normal(gan.generator.latent_dim)
        fake = generator(latents).detach().requires_grad_()
        logits = discriminator(fake)
        loss = gan.loss.generator(real=logits.detach().flip(0), fake=logits).sum()
        (feedback,) = torch.autograd.grad(loss, fake)
        logged = {
            key: value for row in memory.rows if row["images_seen"] == clock for key, value in row.items()
        }
        expected = {"feedback/norm": feedback.flatten(1).norm(dim=1).mean().item()}
        norms = gradient_flow.trace_gradients(*networks, gan.loss, latents).gradient_norms()
        expected |= {f"gradient_flow/{key}": norm.item() for key, norm in norms.items() if key != "samples"}
        for name, now, before in zip(
            ("generator", "discriminator"), networks, copies.networks[clock - 8], strict=True
        ):
            now, before = (
                torch.cat([weight.flatten() for weight in network.parameters()]) for network in (now, before)
            )
            expected[f"update/{name}"] = ((now - before).norm() / before.norm()).item()
        assert {key: logged[key] for key in expected} == pytest.approx(expected, rel=1e-4)
        assert ("feedback/cosine" in logged) == (previous is not None)
        if previous is not None:
            cosine = torch.cosine_similarity(previous.flatten(1), feedback.flatten(1)).mean()
            assert logged["feedback/cosine"] == pytest.approx(cosine.item(), abs=1e-5)
        previous = feedback
    pictures = sorted((tmp_path / "samples").glob("*.png"))
    names = ["000000024_feedback.png", "000000040_feedback.png", "gradient_flow.png"]
    assert [path.name for path in pictures] == names
    red, _, blue = np.array(Image.open(pictures[0])).astype(int).transpose(2, 0, 1)
    assert (red > blue).any() and (blue > red).any()


def test_a_trace_logs_how_well_the_batch_is_separated(tiny_gan, tiny_data, make_trainer, memory):
    gan, data = tiny_gan(**STILL), tiny_data()
    real = next(iter(data.train_dataloader()))[0]
    make_trainer(1, callbacks=[Feedback(every=8)], logger=memory).fit(gan, datamodule=data)
    with torch.no_grad():
        fake = gan.generator(Noise(0, 0, 0, 8, "sample").normal(gan.generator.latent_dim))
        expected = gradient_flow.logit_statistics(real=gan.discriminator(real), fake=gan.discriminator(fake))
    found = {key: memory.values(f"logits/{key}")[8] for key in expected}
    assert found == pytest.approx({key: value.item() for key, value in expected.items()}, abs=1e-6)
    assert memory.values("gradient/below_eps") == memory.values("update/generator") == {8: 0.0}


def test_a_trace_halves_its_batch_where_the_memory_is_too_small(tiny_gan, tiny_data, make_trainer, memory):
    def fit(discriminator):
        trainer = make_trainer(2, callbacks=[Feedback(every=8, count=7)], logger=memory)
        trainer.fit(tiny_gan(discriminator=discriminator), datamodule=tiny_data())

    check_halving(fit, memory.rows, "feedback/norm")


def test_the_history_survives_a_resume(tiny_gan, tiny_data, make_trainer, memory, tmp_path):
    def run(iterations, ckpt_path=None):
        feedback = Feedback(every=8, count=4)
        trainer = make_trainer(iterations, callbacks=[feedback], logger=memory)
        trainer.fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "cut.ckpt", weights_only=False)
        return feedback.history

    straight, cosines = run(4), memory.values("feedback/cosine")
    memory.rows.clear()
    run(2)
    assert run(4, tmp_path / "cut.ckpt") == straight
    assert [clock for clock, _ in straight] == [8, 16, 24, 32]
    assert memory.values("feedback/cosine") == cosines and list(cosines) == [16, 24, 32]


def test_the_heat_map_has_a_row_for_each_layer_and_grey_where_there_is_no_feedback():
    rows = ["discriminator/head", "samples", "generator/latents"]
    picture = heat_map([(i, dict(zip(rows, (1.0, 10.0 ** (-2 * i), 0.0), strict=True))) for i in (1, 2, 3)])
    assert picture.dtype == torch.uint8
    colors = {tuple(pixel) for pixel in picture[:, 240:860].reshape(-1, 3)[::7].tolist()}  # without labels
    assert (211, 211, 211) in colors
    taller = heat_map([(1, {f"generator/{i}": 1.0 for i in range(20)})])
    assert taller.shape[0] > picture.shape[0] and taller.shape[1:] == picture.shape[1:]
    assert heat_map([(1, dict.fromkeys(rows, 0.0)), (2, dict.fromkeys(rows, float("nan")))]).shape

    picture = heat_map([(1, {"discriminator/a": 1.0, "samples": 1e-3, "generator/b": 1e-6})]).float()
    places = [int(60 + (len(picture) - 120) * (i + 0.5) / 3) + 4 for i in range(3)]
    brightness = [picture[place, 500].mean().item() for place in places]
    assert brightness == sorted(brightness, reverse=True) and brightness[0] > brightness[2] + 100
