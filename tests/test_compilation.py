"""Compiled turns: the same game in few graphs. Most tests make graphs, but run them without Inductor."""

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
from torch._dynamo.utils import counters

from litgan import GAN, adversaries
from litgan.callbacks import Gradients
from litgan.compilation import UNITS, compile_turns
from litgan.data import Digits
from litgan.losses import Relativistic, Wasserstein
from litgan.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)
from litgan.penalties import R1, R2, WGANGP
from litgan.precision import PerNetworkLossScale
from litgan.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("error:.*training goes on uncompiled")

CONFIGS = Path(__file__).parents[1] / "configs"
STEADY = partial(torch.optim.SGD, lr=0.02)  # Adam would blow differences in rounding up to whole steps
PICTURES = {
    "generator": partial(DCGANGenerator, latent_dim=4, widths=(8,)),
    "discriminator": partial(DCGANDiscriminator, widths=(8,), spectral_norm=True),
    "sample_shape": (1, 8, 8),
    "num_classes": 10,
}


@pytest.fixture(autouse=True)
def _without_inductor(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Graphs are traced and differentiated as ever, and run as they are."""
    if "inductor" not in request.node.name:
        monkeypatch.setattr(adversaries, "compile_turns", partial(compile_turns, backend="aot_eager"))


class Graphs(Callback):
    """Counts the graphs that there are after each turn of the discriminator, since the first began."""

    def __init__(self):
        self.count: list[int] = []

    def on_train_batch_start(self, *_):
        if not self.count:
            self.before = counters["stats"]["unique_graphs"]

    def on_train_batch_end(self, *_):
        self.count.append(counters["stats"]["unique_graphs"] - self.before)


def pictures() -> Digits:
    return Digits(batch_size=8, num_classes=10)


@pytest.fixture
def both(tiny_gan, tiny_data, make_trainer):
    """Trains a GAN uncompiled and compiled: both, and how many graphs there were after each turn."""

    def train(*, iterations=8, data=None, trainer=None, prepare=lambda trainer: None, **options):
        gans, graphs = [], Graphs()
        steady = {"generator_optimizer": STEADY, "discriminator_optimizer": STEADY}
        for compiled in (False, True):
            gans.append(tiny_gan(compile=compiled, **(steady | options)))
            each = make_trainer(iterations, callbacks=[graphs] if compiled else [], **(trainer or {}))
            prepare(each)
            each.fit(gans[-1], datamodule=data or tiny_data())
        return *gans, graphs.count

    return train


def assert_equal_weights(compiled: GAN, plain: GAN, tolerance: float = 1e-6) -> None:
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        difference = (
            (compiled.state_dict()[name] - value).float().norm()
        )  # counters of batch norm are integers
        assert difference <= tolerance * value.float().norm() + 1e-7, name


GAMES = {  # options, how many graphs they need
    "plain": ({}, 3),
    "lazy R1": ({"penalties": [R1(0.5, interval=3)]}, 3),
    "R1 every turn": ({"penalties": [R1(0.5)]}, 2),  # which never compiles the pass that it differentiates
    "2 turns": ({"discriminator_steps": 2, "penalties": [R2(0.1, interval=4)]}, 3),
    "a penalty's own pass": ({"loss": Wasserstein(), "penalties": [WGANGP()]}, 3),
    "pairs": ({"loss": Relativistic(), "penalties": [R1(0.1, interval=2)]}, 3),
    "micro-batches": ({"micro_batches": 2, "gradient_clip_val": 0.1, "penalties": [R1(0.1, interval=2)]}, 3),
    "one stage": ({"update": "one_stage", "penalties": [WGANGP(interval=2)]}, 2),
    "one stage, R2": ({"update": "one_stage", "penalties": [R2(0.1, interval=2)], "micro_batches": 2}, 2),
    # the shared turn's graphs are others: there both the generator and the fakes are differentiated
    "one stage, 2 turns": (
        {"update": "one_stage", "discriminator_steps": 2, "penalties": [R1(0.5, interval=3)]},
        4,
    ),
}


@pytest.mark.parametrize("game", GAMES)
def test_compiled_turns_are_the_same_in_few_graphs(game, both, tiny_gan):
    options, graphs = GAMES[game]
    plain, compiled, count = both(**options)
    assert_equal_weights(compiled, plain)
    assert not torch.allclose(plain.state_dict()["generator.head.weight"], tiny_gan().generator.head.weight)
    warm = 4 * options.get("discriminator_steps", 1)  # turns, in which every cadence comes round
    assert count[warm - 1] == count[-1] == graphs


def test_the_same_with_labels_and_state_in_the_layers(both):
    """Running statistics and power iterations are changed by graphs as they are without."""
    plain, compiled, count = both(data=pictures(), penalties=[R1(0.1, interval=3)], iterations=5, **PICTURES)
    assert_equal_weights(compiled, plain)
    assert count[-1] == 3


def test_the_same_in_bfloat16(both):
    plain, compiled, count = both(penalties=[R1(0.1, interval=3)], trainer={"precision": "bf16-mixed"})
    assert_equal_weights(compiled, plain, tolerance=2e-3)  # graphs round at other places
    assert count[-1] == 3


def test_the_same_in_float16_whose_penalties_have_a_pass_of_their_own(both):
    def scale(trainer):
        trainer.strategy.precision_plugin = PerNetworkLossScale("cpu", init_scale=256.0)

    plain, compiled, count = both(penalties=[R1(0.1, interval=2)], prepare=scale)
    assert_equal_weights(compiled, plain, tolerance=2e-3)
    assert count[-1] == 3


NETWORKS = {  # generator and discriminator without their widths, and the number of classes
    "MLP": (MLPGenerator, partial(MLPDiscriminator, spectral_norm=True), 10),
    "batch": (partial(DCGANGenerator, norm="batch"), partial(DCGANDiscriminator, norm="batch"), 10),
    "group": (partial(DCGANGenerator, norm="group"), partial(DCGANDiscriminator, norm="group"), 0),
    "pixel": (
        partial(DCGANGenerator, norm="pixel", upsample="nearest"),
        partial(DCGANDiscriminator, norm="pixel"), 0,
    ),
    "none": (partial(DCGANGenerator, norm="none", conditioning="concatenation"), DCGANDiscriminator, 10),
    "SNGAN": (ResNetGenerator, partial(ResNetDiscriminator, flat_widths=(8,)), 0),
    "BigGAN": (
        partial(
            ResNetGenerator, conditioning="shared", hierarchical=True, embedding_dim=4, attention=8,
            spectral_norm=True,
        ),
        partial(ResNetDiscriminator, wide=True, attention=4, flat_widths=(8,)), 10,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "BigGAN" else name for name in NETWORKS]
)
def test_every_network_compiles_whole(name, both, monkeypatch):
    """Each pass is traced into one graph, which need not be differentiated to be seen."""
    monkeypatch.setattr(adversaries, "compile_turns", partial(compile_turns, backend="eager"))
    generator, discriminator, classes = NETWORKS[name]
    plain, compiled, count = both(
        generator=partial(generator, latent_dim=6, widths=(8, 8)),
        discriminator=partial(discriminator, widths=(8, 8)),
        sample_shape=(1, 8, 8), num_classes=classes, iterations=3,
        data=Digits(batch_size=8, num_classes=classes),
    )  # fmt: skip
    assert_equal_weights(compiled, plain, tolerance=1e-5)
    assert count[0] == count[-1] == 3


def test_who_listens_to_a_network_hears_it(both, tmp_path):
    def listen(trainer):
        trainer.callbacks.append(Gradients(every=0, folder=str(tmp_path)))

    plain, compiled, count = both(prepare=listen, trainer={"log_every_n_steps": 3}, iterations=9)
    assert_equal_weights(compiled, plain)
    assert "gradient/feedback" in plain.logged
    assert compiled.logged == pytest.approx(plain.logged, rel=1e-5)
    assert count[-1] == 3  # and the graphs stay good for the turns to which nobody listens


def test_a_ninth_gan_compiles_too(tiny_gan, tiny_data, make_trainer, monkeypatch):
    """torch keeps at most 8 graphs of one code, whichever object it belongs to."""
    monkeypatch.setattr(adversaries, "compile_turns", partial(compile_turns, backend="eager"))
    for width in range(4, 13):
        gan, graphs = tiny_gan(compile=True, generator=partial(MLPGenerator, latent_dim=width)), Graphs()
        make_trainer(1, callbacks=[graphs]).fit(gan, datamodule=tiny_data())
        assert graphs.count == [3]


def test_cuda_graphs_are_told_of_each_iteration(tiny_gan, tiny_data, make_trainer, monkeypatch):
    """Once a batch, before its first pass: fakes, gradients and one-stage's feedback live until the next."""

    class Diary(GAN):
        def latents(self, noise):
            told.append(self.updating)
            return super().latents(noise)

    told: list[str] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: told.append("begin"))
    for compiled in (True, False):
        make_trainer(2).fit(
            tiny_gan(Diary, compile=compiled, discriminator_steps=2, micro_batches=2), datamodule=tiny_data()
        )
        first, second = ["discriminator"] * 2, ["discriminator"] * 2 + ["generator"] * 2
        begin = ["begin"] if compiled else []
        assert told == (begin + first + begin + second) * 2
        told.clear()


# -- checkpoints and copies --------------------------------------------------------------------


def test_checkpoints_know_nothing_of_it(tiny_gan, tiny_data, make_trainer, tmp_path):
    def train(iterations, compiled, ckpt_path=None):
        gan = tiny_gan(compile=compiled, penalties=[R1(0.1, interval=2)])
        trainer = make_trainer(iterations)
        trainer.fit(gan, datamodule=tiny_data(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / f"{iterations}-{compiled}.ckpt")
        return gan

    straight = train(6, True)
    half = train(3, True)
    resumed, changed = (train(6, compiled, tmp_path / "3-True.ckpt") for compiled in (True, False))
    assert all(
        torch.equal(resumed.state_dict()[name], value) for name, value in straight.state_dict().items()
    )
    assert_equal_weights(changed, straight, tolerance=1e-5)
    arguments = {
        "generator": partial(MLPGenerator, latent_dim=4, widths=(16,)),
        "discriminator": partial(MLPDiscriminator, widths=(16,), activation="silu"),
        "loss": half.loss, "generator_optimizer": STEADY, "discriminator_optimizer": STEADY,
        "sample_shape": (2,),
    }  # fmt: skip
    loaded = GAN.load_from_checkpoint(tmp_path / "3-True.ckpt", **arguments)
    assert torch.equal(loaded.sample(3), half.sample(3))


class Copies(Callback):
    """Copies the GAN after its second iteration, amid training."""

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        if gan.discriminator_updates == 2:
            self.copy = copy.deepcopy(gan)


def test_a_gan_can_be_copied_and_pickled(tiny_gan, tiny_data, make_trainer):
    gan, copies = tiny_gan(compile=True), Copies()
    make_trainer(3, callbacks=[copies]).fit(gan, datamodule=tiny_data())
    assert not set(UNITS) & vars(gan).keys()
    for other in (copy.deepcopy(gan), pickle.loads(pickle.dumps(gan.generator))):
        assert other is not None
    latents = torch.randn(8, 4)
    amid = copies.copy
    assert torch.equal(amid.imagine(latents, None), amid.generator(latents))  # its own, two iterations old
    assert not torch.equal(amid.imagine(latents, None), gan.imagine(latents, None))


def test_a_run_that_broke_off_can_be_copied_and_run_again(tiny_gan, tiny_data, make_trainer):
    class Breaks(Callback):
        def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
            raise RuntimeError("it broke off")

    gan = tiny_gan(compile=True)
    with pytest.raises(RuntimeError, match="it broke off"):
        make_trainer(3, callbacks=[Breaks()]).fit(gan, datamodule=tiny_data())
    for again in (copy.deepcopy(gan), gan):
        before = again.turns
        make_trainer(2).fit(again, datamodule=tiny_data())
        assert again.turns == before + 2
    assert_equal_weights(gan, again)


# -- what it asks for --------------------------------------------------------------------------


class Chatty(MLPDiscriminator):
    """Looks at a value amid its pass, as no graph can."""

    def forward(self, samples, labels=None):
        if samples.mean().item() > 1e6:
            samples = samples / 2
        return super().forward(samples, labels)


@pytest.mark.filterwarnings("default:.*training goes on uncompiled")
def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(both):
    with pytest.warns(
        UserWarning, match=r"cannot be compiled .*: training goes on uncompiled; leave"
    ) as told:
        plain, compiled, _ = both(discriminator=partial(Chatty, widths=(16,)))
    said = [str(each.message) for each in told if "uncompiled" in str(each.message)]
    assert [sentence.split()[0] for sentence in said] == ["GAN.tell_apart", "GAN.fool"]  # once each
    assert not any("\n" in sentence for sentence in said)
    assert_equal_weights(compiled, plain, tolerance=0)


@pytest.mark.filterwarnings("default:.*training goes on uncompiled")
def test_nothing_to_compile_with_is_said_once(tiny_gan):
    gan = tiny_gan()
    with pytest.warns(UserWarning, match="nothing can be compiled here .*install a C.. compiler") as told:
        compile_turns(gan, True, backend="no such backend")
    assert len(told) == 1 and "\n" not in str(told[0].message)
    assert not set(UNITS) & vars(gan).keys()


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


# -- the real compiler, and real ranks ---------------------------------------------------------

TINY = """
import torch, warnings
from functools import partial
from lightning.pytorch import Trainer
from litgan import GAN
from litgan.data import Ring
from litgan.losses import NonSaturating
from litgan.networks import MLPDiscriminator, MLPGenerator
adam = partial(torch.optim.Adam, lr=1e-3)
gan = GAN(partial(MLPGenerator, latent_dim=4, widths=(8,)), partial(MLPDiscriminator, widths=(8,)),
          NonSaturating(), adam, adam, sample_shape=(2,), compile=True)
Trainer(max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False).fit(gan, Ring(batch_size=8))
print("turns:", gan.discriminator_updates)
"""
RANKS = """
import sys
from functools import partial
from pathlib import Path
import torch, workers
from litgan import GAN, adversaries
from litgan.compilation import compile_turns
from litgan.data import Ring
from litgan.losses import NonSaturating
from litgan.penalties import R1
from litgan.strategies import register

adversaries.compile_turns = partial(compile_turns, backend="aot_eager")

def work(compiled):
    gan = GAN(loss=NonSaturating(), penalties=[R1(0.1, interval=3)], compile=compiled, micro_batches=2,
              gradient_clip_val=0.5, **workers.POINTS)
    weights = workers.train(gan, Ring(batch_size=8, samples=40))["weights"]
    torch.save(weights, Path(sys.argv[1]) / f"{workers.WORLD}-{workers.RANK}.pt")

register()
for world_size in (1, 2):
    workers.in_turn(world_size, work, world_size == 2)
"""


def run(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment,
    )  # fmt: skip


@pytest.mark.slow
def test_without_a_compiler_the_run_goes_on(tmp_path):
    done = run(TINY, CXX="/nowhere/g++", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "turns: 2" in done.stdout
    assert done.stderr.count("training goes on uncompiled") == 1
    assert "/nowhere/g++" in done.stderr


@pytest.mark.slow
def test_two_compiled_ranks_learn_what_one_learns(tmp_path):
    done = run(RANKS, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "uncompiled" not in done.stderr
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in alone:
        assert (first[name] - alone[name]).norm() <= 1e-5 * alone[name].norm(), name


@pytest.mark.slow
def test_inductor_plays_the_same_game(both):
    options = PICTURES | {"discriminator_steps": 2, "penalties": [R1(0.1, interval=3)]}
    plain, compiled, count = both(data=pictures(), **options)
    assert_equal_weights(compiled, plain, tolerance=1e-4)
    assert count[-1] == count[7] == 3
