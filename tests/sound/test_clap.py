"""CLAP with random weights, against the network and the preprocessor of transformers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from litgan import commands
from litgan.metrics import evaluate
from litgan.rebuild import Builder
from litgan.sound import Clap, Tones

RATE = 48_000  # Hz, of the network


def published(folder: Path, *, fused: bool = False) -> Path:
    """A folder as on the hub, of a smaller network with random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    audio = {
        "depths": [1, 1, 1, 1], "num_attention_heads": [2, 2, 2, 2], "patch_embeds_hidden_size": 16,
        "hidden_size": 128, "projection_dim": 32, "enable_fusion": fused,
    }  # fmt: skip
    text = {
        "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "projection_dim": 32,
    }  # fmt: skip
    config = transformers.ClapConfig(audio_config=audio, text_config=text, projection_dim=32)
    transformers.ClapModel(config).save_pretrained(folder)
    transformers.ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(published(tmp_path_factory.mktemp("clap")))


@pytest.mark.parametrize("length", [4_800, 100_000, 480_000])
def test_features_are_those_of_transformers(weights: str, length: int) -> None:
    """The whole model of transformers, fed by its own preprocessor in numpy."""
    from transformers import ClapFeatureExtractor, ClapModel

    waves = torch.randn(2, 1, length, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) / 4
    preprocessor = ClapFeatureExtractor.from_pretrained(weights)
    model = ClapModel.from_pretrained(weights).eval()
    inputs = preprocessor(list(waves.squeeze(1).numpy()), sampling_rate=RATE, return_tensors="pt")
    extractor = Clap(weights=weights)
    found = extractor.log_mel(repeated(waves.squeeze(1)))
    torch.testing.assert_close(found, inputs["input_features"].squeeze(1), rtol=0, atol=1e-2)
    with torch.no_grad():
        embeds = model.audio_projection(model.audio_model(**inputs).pooler_output)
    torch.testing.assert_close(extractor(waves), embeds, rtol=1e-3, atol=1e-4)


def repeated(waves: torch.Tensor) -> torch.Tensor:
    whole = waves.repeat(1, 10 * RATE // waves.shape[1])
    return torch.nn.functional.pad(whole, (0, 10 * RATE - whole.shape[1]))


def test_the_first_ten_seconds_count_and_gradients_reach_them(weights: str) -> None:
    extractor, wave = Clap(weights=weights), torch.randn(1, 1, 11 * RATE).clamp(-1, 1)
    assert torch.equal(extractor(wave), extractor(wave[..., : 10 * RATE]))
    wave = (torch.randn(1, 1, 4_096) / 4).requires_grad_()
    features = Clap(8_000, weights=weights)(wave)
    assert features.shape == (1, 32) and features.dtype == torch.float32
    features.sum().backward()
    assert wave.grad is not None and wave.grad.isfinite().all() and wave.grad.any()


def test_it_measures_a_data_set_at_its_rate(weights: str, tmp_path: Path) -> None:
    data = Tones(samples=12, batch_size=4)
    extractor = Clap(weights=weights)
    reals = torch.cat([samples for samples, _ in data.real_batches(12)])

    def measured(fakes: torch.Tensor) -> float:
        report = evaluate(
            lambda first, count: fakes[first : first + count], data, extractor, count=12, cache_dir=tmp_path
        )
        assert report.protocol["sample_rate"] == data.sample_rate
        return report.values["metric/fd_clap"]

    assert measured(reals) < 1e-6 < measured(torch.rand_like(reals) * 2 - 1)
    explicit = Clap(data.sample_rate, weights=weights)
    assert torch.equal(extractor(reals), explicit(reals)), "the rate is that of the data"
    assert not torch.equal(extractor(reals), Clap(weights=weights)(reals)), "and it matters"
    encoded = Tones(samples=12, batch_size=4, mu_law=255)
    explicit.setup(encoded)
    samples = torch.cat([samples for samples, _ in encoded.real_batches(12)])
    torch.testing.assert_close(explicit(samples), extractor(reals), rtol=1e-3, atol=1e-3)


def test_what_it_cannot_use_is_named(weights: str, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(ValueError, match=r"sample_rate 48000, but the data set has \d+ Hz"):
        Clap(RATE, weights=weights).setup(Tones(samples=32, batch_size=8))
    with pytest.raises(ValueError, match=r"not \[2, 1, 8, 8\]"):
        Clap(weights=weights)(torch.zeros(2, 1, 8, 8))
    with pytest.raises(RuntimeError, match="nowhere"):
        Clap(weights=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="--download"):
        Clap(download=False)
    with pytest.raises(ValueError, match="fuse crops of long sounds"):
        Clap(weights=str(published(tmp_path / "fused", fused=True)))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install litgan\[clap\]"):
        Clap(weights=weights)


def test_no_weights_are_read_that_a_checkpoint_names() -> None:
    chosen = {"class_path": "litgan.sound.Clap", "init_args": {"weights": "./theirs"}}
    checkpoint = {"litgan": {"recipe": {"realism": {"extractor": chosen}}}}
    for builder in (Builder(), Builder(download=True)):
        with pytest.raises(ValueError, match=r"checkpoint's recipe.*theirs.*--extractor.*\.$"):
            commands.build_extractor(checkpoint, builder)


def test_weights_that_are_not_there_are_named_by_the_command(complaint: Any) -> None:
    pytest.importorskip("transformers")
    recipe = Path(__file__).parents[2] / "configs" / "sound" / "tones.yaml"
    options = ["--realism.extractor=litgan.sound.Clap", "--realism.extractor.weights=/no/where"]
    sentence = complaint("fit", "--config", recipe, "--trainer.max_steps=1", *options)
    assert "/no/where" in sentence and "give `weights`" in sentence
