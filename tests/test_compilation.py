"""Compiled networks learn the same in few graphs. Most tests make graphs, but run them without Inductor."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from shared.compiling import Graphs, assert_equal_weights, check_few_graphs, pairs, without_inductor
from torch import nn

import litgan.gan
from litgan import GAN
from litgan.callbacks import Feedback
from litgan.compilation import compile_networks
from litgan.data import Digits
from litgan.losses import Relativistic, Wasserstein
from litgan.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from litgan.networks.layers import spectral_norm
from litgan.penalties import R1, R2, WGANGP
from litgan.precision import PerNetworkLossScale
from litgan.recipe import Recipe

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("error:.*training goes on uncompiled")]

CONFIGS = Path(__file__).parents[1] / "configs"
PICTURES = {
    "generator": partial(DCGANGenerator, latent_dim=4, widths=(8,)),
    "discriminator": partial(DCGANDiscriminator, widths=(8,), spectral_norm=True),
    "sample_shape": (1, 8, 8),
    "condition": 10,
}


@pytest.fixture(autouse=True)
def _without_inductor(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Graphs are traced and differentiated as ever, and run as they are."""
    if "inductor" not in request.node.name:
        without_inductor(monkeypatch)


@pytest.fixture
def both(tiny_gan, tiny_data, make_trainer):
    """Trains a GAN uncompiled and compiled: both, and how many graphs there were after each step."""
    return pairs(tiny_gan, tiny_data, make_trainer)


GAMES = {
    "plain": {},
    "lazy R1": {"penalties": [R1(0.5, interval=3)]},
    "R1 in every step": {"penalties": [R1(0.5)]},
    "2 discriminator steps": {"discriminator_steps": 2, "penalties": [R2(0.1, interval=4)]},
    "a penalty's own pass": {"loss": Wasserstein(), "penalties": [WGANGP()]},
    "pairs": {"loss": Relativistic(), "penalties": [R1(0.1, interval=2)]},
    "micro-batches": {"micro_batches": 2, "gradient_clip_val": 0.1, "penalties": [R1(0.1, interval=2)]},
}  # fmt: skip


@pytest.mark.parametrize("game", GAMES)
def test_compiled_networks_learn_the_same_in_few_graphs(game, both, tiny_gan):
    check_few_graphs(both, GAMES[game], tiny_gan)


def test_the_same_with_labels_and_state_in_the_layers(both):
    """Running statistics and power iterations are changed by graphs as they are without."""
    data = Digits(batch_size=8, num_classes=10)
    plain, compiled, _ = both(data=data, penalties=[R1(0.1, interval=3)], iterations=5, **PICTURES)
    assert_equal_weights(compiled, plain)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])  # float16's penalties have their own pass
def test_the_same_in_mixed_precision(precision, both):
    def scale(trainer):
        half = precision == "16-mixed"
        plugin = PerNetworkLossScale("cpu", init_scale=256.0) if half else MixedPrecision(precision, "cpu")
        trainer.strategy.precision_plugin = plugin

    plain, compiled, count = both(penalties=[R1(0.1, interval=2)], prepare=scale)
    assert_equal_weights(compiled, plain, tolerance=2e-3)  # graphs round at other places
    assert count[-1] > 0


class Chatty(MLPDiscriminator):
    """Looks at a value amid its pass, as no graph can."""

    def forward(self, samples, labels=None):
        if samples.mean().item() > 1e6:
            samples = samples / 2
        return super().forward(samples, labels)


def test_a_network_that_is_no_single_graph_learns_the_same(both):
    plain, compiled, _ = both(discriminator=partial(Chatty, widths=(16,)), penalties=[R1(0.1, interval=2)])
    assert_equal_weights(compiled, plain)


def test_forward_hooks_of_callbacks_are_called(both, tmp_path):
    def listen(trainer):
        trainer.callbacks.append(Feedback(every=0, folder=str(tmp_path)))

    plain, compiled, count = both(prepare=listen, trainer={"log_every_n_steps": 3}, iterations=9)
    assert_equal_weights(compiled, plain)
    assert "gradient/feedback" in plain.logged
    assert compiled.logged == pytest.approx(plain.logged, rel=1e-5)
    assert count[3] == count[-1]  # the graphs stay good for the iterations in which nobody listens


def test_a_fifth_gan_compiles_too(tiny_gan, tiny_data, make_trainer, monkeypatch):
    """torch keeps at most 8 graphs of one code, whichever network it belongs to."""
    monkeypatch.setattr(litgan.gan, "compile_networks", partial(compile_networks, backend="eager"))
    for width in range(4, 9):
        gan, graphs = tiny_gan(compile=True, generator=partial(MLPGenerator, latent_dim=width)), Graphs()
        make_trainer(1, callbacks=[graphs]).fit(gan, datamodule=tiny_data())
        assert graphs.count[0] > 1


def test_cuda_graphs_are_told_of_each_batch(tiny_gan, tiny_data, make_trainer, monkeypatch):
    """Before its first pass: fakes, gradients and one-stage's feedback live until the next."""

    class Diary(GAN):
        def generate(self, condition, noise):
            diary.append(self.updating)
            return super().generate(condition, noise)

    diary: list[str] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: diary.append("begin"))
    gan = tiny_gan(Diary, compile=True, discriminator_steps=2, micro_batches=2)
    make_trainer(2).fit(gan, datamodule=tiny_data())
    first = ["begin", "discriminator", "discriminator"]
    assert diary == [*first, *first, "generator", "generator"] * 2


# -- checkpoints and copies --------------------------------------------------------------------


def test_checkpoints_know_nothing_of_it(tiny_gan, tiny_data, make_trainer, tmp_path):
    def train(iterations, compiled, ckpt_path=None):
        gan = tiny_gan(compile=compiled, penalties=[R1(0.1, interval=2)])
        trainer = make_trainer(iterations)
        trainer.fit(gan, datamodule=tiny_data(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / f"{iterations}-{compiled}.ckpt")
        return gan

    straight = train(6, True)
    train(3, True)
    resumed, changed = (train(6, compiled, tmp_path / "3-True.ckpt") for compiled in (True, False))
    assert_equal_weights(resumed, straight, tolerance=0)
    assert_equal_weights(changed, straight, tolerance=1e-5)


class Copies(Callback):
    """Copies the GAN after its second iteration, amid training."""

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        if gan.discriminator_updates == 2:
            self.copy, self.pickled = copy.deepcopy(gan), pickle.dumps(gan.generator)
            raise RuntimeError("it broke off")


def test_a_gan_can_be_copied_and_pickled_amid_training_and_trained_again(tiny_gan, tiny_data, make_trainer):
    gan, copies, latents = tiny_gan(compile=True), Copies(), torch.randn(8, 4)
    with pytest.raises(RuntimeError, match="it broke off"):
        make_trainer(3, callbacks=[copies]).fit(gan, datamodule=tiny_data())
    assert torch.equal(copies.copy.generator(latents), pickle.loads(copies.pickled)(latents))
    for again in (copies.copy, copy.deepcopy(gan), gan):
        make_trainer(2).fit(again, datamodule=tiny_data())
        assert again.discriminator_updates == 4
        assert_equal_weights(again, copies.copy, tolerance=0)


# -- what it asks for --------------------------------------------------------------------------


@pytest.mark.filterwarnings("default:.*training goes on uncompiled")
def test_nothing_to_compile_with_is_said_once(tiny_gan):
    gan = tiny_gan()
    with pytest.warns(UserWarning, match="nothing can be compiled here .*install a C.. compiler") as warned:
        compile_networks(gan.generator, gan.discriminator, mode=True, backend="no such backend")
    assert len(warned) == 1 and "\n" not in str(warned[0].message)
    assert gan.generator._compiled_call_impl is None


def test_a_mode_that_there_is_not_is_refused(tiny_gan, tiny_data, make_trainer):
    with pytest.raises(ValueError, match=r"compile is 'fast': give true, false or a mode .*reduce-overhead"):
        make_trainer(1).fit(tiny_gan(compile="fast"), datamodule=tiny_data())


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ([], False),
        (["--model.compile", "true"], True),
        (["--model.compile", "reduce-overhead"], "reduce-overhead"),
        (["--config", str(CONFIGS / "overlays" / "compile.yaml")], True),
    ],
)
def test_recipes_ask_for_it(options, mode, tmp_path):
    options = ["--config", str(CONFIGS / "ring.yaml"), *options, "--trainer.logger", "false"]
    recipe = Recipe([*options, f"--trainer.default_root_dir={tmp_path}"], "validate")
    assert recipe.model.compile_mode == mode


# -- the real compiler -------------------------------------------------------------------------

TINY = """
import workers
from litgan import GAN
from litgan.data import Ring
from litgan.losses import NonSaturating
gan = GAN(loss=NonSaturating(), compile=True, **workers.POINTS)
workers.train(gan, Ring(batch_size=8), iterations=2, strategy="auto")
print("updates:", gan.discriminator_updates)
"""


@pytest.mark.spawn
def test_without_a_compiler_the_run_goes_on(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    environment |= {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", TINY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "updates: 2" in done.stdout
    assert done.stderr.count("training goes on uncompiled") == 1
    assert "/nowhere/g++" in done.stderr


def test_inductor_learns_the_same(both):
    options = PICTURES | {"discriminator_steps": 2, "penalties": [R1(0.1, interval=3)]}
    plain, compiled, count = both(data=Digits(batch_size=8, num_classes=10), **options)
    assert_equal_weights(compiled, plain, tolerance=1e-4)
    assert 0 < count[7] == count[-1]


def test_two_passes_through_a_spectral_norm_that_inductor_compiled_have_a_gradient():
    """It computes small products with vectors again in the backward pass, from buffers that have changed."""
    plain, samples = nn.Conv2d(3, 8, 1), torch.randn(2, 4, 3, 8, 8)
    spectral_norm(plain)
    compiled = copy.deepcopy(plain)
    for call in (plain, torch.compile(compiled)):
        real, fake = (call(side) for side in samples)
        (real.mean() - fake.square().mean()).backward()
    for one, other in zip(plain.buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
