"""Lower voices for given upper ones: data, a game, and a file of one's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from music.judges import nearest_phrase

from litgan import cli
from litgan.data import Derived
from litgan.music import (
    CausalRollDiscriminator,
    GivenTracks,
    PianoRollDiscriminator,
    PianoRolls,
    RecurrentRollGenerator,
    Scales,
)
from litgan.music.midi import to_midi_file
from litgan.music.scores import read_midi
from litgan.noise import Noise
from litgan.penalties import R1
from litgan.reconstruction import Likelihood

SHAPE = (3, 16, 20)
RECIPE = Path(__file__).parents[2] / "configs" / "music" / "chorales_harmony.yaml"


class Octaves(Scales):
    """The second of two voices is the first in the other octave: what a melody asks for is known."""

    def read(self, split: str) -> tuple[torch.Tensor, None]:
        rolls, _ = super().read(split)
        rolls[:, 1] = rolls[:, 0].roll(self.pitches // 2, 2)
        return rolls, None


def test_conditions_are_the_upper_voices_and_move_with_their_samples() -> None:
    data = Derived(Scales(tracks=3, samples=40, transpose=4), GivenTracks(2), batch_size=8)
    assert data.condition == data.sample_shape == (3, 16, 24)
    samples, condition = next(data.real_batches(5, split="test"))
    assert torch.equal(condition[:, :2], samples[:, :2]) and not condition[:, 2].any()
    stored = data.load()[0][:8]
    moved, given = data.augment_pair(stored, stored, Noise(0, 0, 0, 8, "real"))
    assert not torch.equal(moved, stored)
    assert torch.equal(data.encode_condition(given)[:, :2], data.encode(moved)[:, :2])
    assert len(data.decode_condition(condition)) == 5


def test_a_discriminator_reads_a_given_voice_in_the_sample() -> None:
    samples = torch.zeros(2, *SHAPE)
    samples[1, 0, :, 3] = 1
    one, other = PianoRollDiscriminator(SHAPE, SHAPE, widths=(8, 8))(samples, torch.zeros(2, *SHAPE))
    assert not torch.allclose(one, other)


@pytest.mark.train
def test_it_learns_what_a_melody_asks_for(tiny_gan, make_trainer, tmp_path) -> None:
    """Maximum likelihood and adversary together."""
    torch.manual_seed(0)
    data = Derived(Octaves(samples=2000), GivenTracks(), batch_size=32)
    adam = partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.99))
    gan = tiny_gan(
        generator=partial(RecurrentRollGenerator, given=1, latent_dim=4, width=64, track_width=48),
        discriminator=partial(CausalRollDiscriminator, width=24, track_width=24, dilations=(1, 2)),
        sample_shape=data.sample_shape, condition=data.condition, reconstruction=[Likelihood(1.0)],
        penalties=[R1(0.5, interval=4)], generator_optimizer=adam, discriminator_optimizer=adam,
    )  # fmt: skip

    def right() -> float:
        real, condition = next(data.real_batches(250, split="test"))
        return (gan.sample(250, condition=condition, ema=False) == real)[:, 1].all(2).float().mean().item()

    assert right() < 0.2
    make_trainer(tmp_path, max_steps=150).fit(gan, datamodule=data)
    print(f"{right():.1%} of the steps have the right note")
    assert right() > 0.95


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two iterations of the recipe on scales."""
    pytest.importorskip("mido", reason="mido is not installed: pip install litgan[music]")
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.setenv("LITGAN_CACHE", str(root / "cache"))
        cli.main(
            ["fit", "--config", str(RECIPE), "--trainer.max_steps=2", "--data.batch_size=8", "--data.data",
             "litgan.music.Scales", "--data.data.tracks=4", "--data.data.samples=40",
             "--data.data.steps_per_bar=16", "--model.generator.init_args.width=16",
             "--samples.count=4", "--realism.count=40", "--trainer.enable_progress_bar=false",
             f"--trainer.default_root_dir={root}"]
        )  # fmt: skip
    (path,) = root.glob("chorales_harmony/*/checkpoints/last.ckpt")
    return path


def test_a_run_shows_triples_and_compares_pairs(checkpoint: Path) -> None:
    run = checkpoint.parents[1]
    assert {"000000000.png", "000000000.mid"} <= {path.name for path in (run / "samples").iterdir()}
    assert "metric/agreement" in (run / "metrics.csv").read_text()


def test_a_tune_of_ones_own_gets_lower_voices(checkpoint: Path, tmp_path: Path) -> None:
    tune = [
        (0, 16 * bar + 4 * beat, 16 * bar + 4 * beat + 4, 3 + beat) for bar in range(3) for beat in range(4)
    ]
    options = {"tracks": 1, "lowest": 60, "steps_per_quarter": 4, "quarters_per_bar": 4, "tempo": 120}
    write = partial(to_midi_file, **options)
    write(tune[:-2]).save(tmp_path / "tune.mid")
    cli.main(["sample", str(checkpoint), f"--input={tmp_path / 'tune.mid'}", f"--out={tmp_path / 'out'}"])
    score = read_midi(tmp_path / "out" / "tune.mid")
    on_top = [
        (track, 4 * start, 4 * end, pitch - 60) for track, start, end, pitch in score.notes if not track
    ]
    assert sorted(on_top) == sorted(tune[:-2])
    assert {track for track, *_ in score.notes} >= {0, 1}
    assert max(end for _, _, end, _ in score.notes) <= 12, "in whole bars"
    options["lowest"] = 90
    partial(to_midi_file, **options)(tune).save(tmp_path / "high.mid")
    with pytest.raises(SystemExit):
        cli.main(["sample", str(checkpoint), f"--input={tmp_path / 'high.mid'}", f"--out={tmp_path}"])


class Tunes(PianoRolls):
    """Two phrases, whose lower voice tells which it is."""

    def __init__(self) -> None:
        super().__init__(2, 1, 4, 60, 24)

    def read(self, split: str) -> tuple[torch.Tensor, None]:
        rolls = torch.zeros(2, 2, 4, 24, dtype=torch.uint8)
        rolls[0, 0, [0, 1, 2, 3], [12, 14, 12, 14]] = rolls[1, 0, :, 12] = 1
        rolls[0, 1, :, 5], rolls[1, 1, :, 7] = 1, 1
        return rolls, None


def test_the_nearest_phrase_is_found_in_another_key_and_moved() -> None:
    condition = torch.zeros(2, 2, 4, 24)
    condition[0, 0, [0, 1, 2], [15, 17, 15]] = condition[1, 0, :, 10] = 1
    made = nearest_phrase(condition, Derived(Tunes(), GivenTracks()))
    assert torch.equal(made[:, 0], condition[:, 0])
    assert made[0, 1, :, 8].all() and made[1, 1, :, 5].all() and made[:, 1].sum() == 8
