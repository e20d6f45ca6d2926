"""Extractors: what ships reaches what it states, and Inception is torch-fidelity's to the last digit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from train_extractors import RECIPES, accuracy, labelled, shifted, train

from litgan.data import Digits, FashionMNIST
from litgan.data.images import DEBIAN_FASHION_MNIST
from litgan.metrics import extractors
from litgan.metrics.distances import frechet_distance
from litgan.metrics.extractors import WEIGHTS, Classifier, Inception, load_extractor

SHIPPED = ["digits", "fashion"]


@pytest.fixture(scope="module")
def digits() -> Classifier:
    return load_extractor("digits")


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory) -> Path:
    """torch-fidelity's architecture, filled so that signals keep their size from layer to layer."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = module.FeatureExtractorInceptionV3.__new__(module.FeatureExtractorInceptionV3)
    generator = torch.Generator().manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # its __init__ wants the weights that we are about to make
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network.__init__("inception", ["2048"])
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(part.weight, 0.8, 1.2, generator=generator)
            nn.init.normal_(part.bias, 0, 0.1, generator=generator)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def pictures(count: int, channels: int = 1, size: int = 8, seed: int = 0) -> Tensor:
    drawn = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return drawn * 2 - 1


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_are_small_and_say_where_they_come_from(name):
    path = WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size < 500_000
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    recipe = RECIPES[name]
    assert json.loads(metadata["recipe"]) == json.loads(json.dumps(vars(recipe)))
    assert {"accuracy", "seed", "torch", "script", "data"} <= metadata.keys()
    assert load_extractor(name).dimension == recipe.widths[-1]


def test_digits_reaches_its_stated_accuracy(digits):
    data = Digits()
    _, unseen = labelled(data)
    assert len(unseen[1]) == 360
    assert accuracy(digits, *unseen) == pytest.approx(stated("digits", data.fingerprint), abs=1e-4)
    assert stated("digits", data.fingerprint) >= 0.98


@pytest.mark.skipif(not Path(DEBIAN_FASHION_MNIST).is_dir(), reason="dataset-fashion-mnist is not installed")
@pytest.mark.heavy
def test_fashion_reaches_its_stated_accuracy():
    data = FashionMNIST()
    _, unseen = labelled(data)
    assert len(unseen[1]) == 10_000
    # one picture on the border may fall either way on another processor
    assert accuracy(load_extractor("fashion"), *unseen) == pytest.approx(
        stated("fashion", data.fingerprint), abs=3e-4
    )
    assert stated("fashion", data.fingerprint) >= 0.91


def stated(name: str, fingerprint: str) -> float:
    with safe_open(WEIGHTS / f"{name}.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["data"] == fingerprint
    return float(metadata["accuracy"])


def test_the_training_script_learns():
    """A tenth of the digits' schedule already reads most of them."""
    known, unseen = labelled(Digits())
    recipe = RECIPES["digits"]
    quick = type(recipe)(**{**vars(recipe), "epochs": 3})
    before = accuracy(Classifier(recipe.name, recipe.size, recipe.widths), *unseen)
    after = accuracy(train(quick, *known, seed=1), *unseen)
    assert before < 0.3 and after > 0.85


def test_shifted_pictures_lose_only_their_edge():
    samples = pictures(64, size=8)
    moved = shifted(samples, 1, torch.Generator().manual_seed(0))
    offsets = {
        (down, right)
        for picture, original in zip(moved, samples, strict=True)
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
        if torch.equal(picture[0, 1:-1, 1:-1], original[0, 1 + down : 7 + down, 1 + right : 7 + right])
    }
    assert len(offsets) == 9


def test_features_of_a_classifier(digits):
    seen = digits(pictures(5))
    assert seen.shape == (5, digits.dimension) and seen.dtype == torch.float32
    torch.testing.assert_close(digits.logits(pictures(5)), digits.head(seen))
    assert digits.classify(pictures(5)).tolist() == digits.head(seen).argmax(1).tolist()


def test_colour_is_averaged_and_other_sizes_are_resized(digits):
    grey = pictures(3)
    torch.testing.assert_close(digits(grey.expand(-1, 3, -1, -1)), digits(grey))
    doubled = grey.repeat_interleave(2, 2).repeat_interleave(2, 3)
    shrunk = nn.functional.interpolate(doubled, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(digits(doubled), digits(shrunk))


def test_samples_are_clipped_as_a_saved_picture_would_be(digits):
    wild = 3 * pictures(4)
    torch.testing.assert_close(digits(wild), digits(wild.clamp(-1, 1)))


def test_autocast_does_not_reach_the_extractor(digits):
    for look in (digits, digits.logits):
        calm = look(pictures(4))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(look(pictures(4)), calm)
        assert calm.dtype == torch.float32


def test_an_extractor_stays_frozen_and_in_evaluation_mode_under_a_training_parent(digits):
    parent = nn.ModuleDict({"extractor": digits}).train()
    assert not any(part.training for part in parent["extractor"].modules())
    assert not any(parameter.requires_grad for parameter in digits.parameters())
    before = digits.digest
    digits(pictures(8))
    assert extractors.weights_digest(digits) == before


def test_gradients_flow_to_the_samples(digits):
    samples = (0.5 * pictures(2)).requires_grad_()
    digits(samples).sum().backward()
    assert samples.grad is not None and samples.grad.abs().sum() > 0


def test_the_digest_follows_the_weights(digits):
    other = Classifier("digits", 8, (32, 64, 96))
    assert other.digest != digits.digest
    other.load_state_dict(digits.state_dict())
    assert extractors.weights_digest(other) == digits.digest == load_extractor("digits").digest
    assert digits.protocol() == {
        "extractor": "digits",
        "digest": digits.digest,
        "resize": "8 x 8, bilinear, antialias",
        "dtype": "float32",
    }


def test_look_up(digits):
    assert load_extractor(digits) is digits
    with pytest.raises(
        ValueError, match="No feature extractor 'digit': choose one of inception, inception-bf16, digits"
    ):
        load_extractor("digit")


def test_samples_that_are_no_images_are_refused_in_a_sentence(digits):
    with pytest.raises(ValueError, match=r"'digits' looks at images .* not at \[4, 2\]: choose one"):
        digits(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"not at \[4, 2, 8, 8\]"):
        digits(torch.zeros(4, 2, 8, 8))


def test_files_that_hold_no_classifier_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "text.safetensors").write_text("not weights")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    metadata = {"classifier": json.dumps({"name": "x", "size": 8, "widths": [4]})}
    save_file({"weight": torch.zeros(1)}, tmp_path / "misfit.safetensors", metadata)
    for name in ("text", "other", "misfit", "absent"):
        with pytest.raises(ValueError, match=rf"{name}\.safetensors holds no classifier"):
            Classifier.from_file(tmp_path / f"{name}.safetensors")


@pytest.fixture(scope="module")
def reference(inception_weights):
    """torch-fidelity's own extractor."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = module.FeatureExtractorInceptionV3("reference", ["2048"], str(inception_weights))
    return lambda pixels: network(pixels)[0]


@pytest.fixture(scope="module")
def inception(inception_weights) -> Inception:
    return Inception(inception_weights)


@pytest.mark.heavy
def test_inception_sees_what_torch_fidelitys_does(inception, reference):
    """The features of uint8 pictures that both round alike, and the distance to float32's own 1e-6."""
    real, fake = noise_pictures(9, seed=0), noise_pictures(8, seed=1)  # nine: more than one pass on a CPU
    ours = {"real": inception(as_samples(real)), "fake": inception(as_samples(fake))}
    theirs = {"real": reference(real), "fake": reference(fake)}
    for side in ours:
        torch.testing.assert_close(ours[side], theirs[side], rtol=1e-4, atol=1e-5 * theirs[side].std())
    assert ours["real"].dtype == torch.float32 and ours["real"].shape == (9, 2048)
    distance = frechet_distance(**ours).item()
    assert distance == pytest.approx(frechet_distance(**theirs).item(), rel=1e-6)


@pytest.mark.heavy  # its reference takes the eigenvalues of a 2048 x 2048 matrix
def test_inception_measures_what_torch_fidelity_does(inception, inception_weights):
    """Its own pipeline, to what the 2,041 zeros under its square root leave of so few samples."""
    torch_fidelity = pytest.importorskip("torch_fidelity")
    real, fake = noise_pictures(8, seed=0), noise_pictures(7, seed=1)
    reals, fakes = inception(as_samples(real)), inception(as_samples(fake))
    theirs = torch_fidelity.calculate_metrics(
        input1=Pixels(fake),
        input2=Pixels(real),
        fid=True,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        batch_size=12,
        feature_extractor_weights_path=str(inception_weights),
    )["frechet_inception_distance"]
    assert frechet_distance(real=reals, fake=fakes).item() == pytest.approx(theirs, rel=1e-3)
    assert (reals.mean(0) - fakes.mean(0)).square().sum() < 0.8 * theirs  # the covariances have their say


@pytest.mark.heavy
def test_bf16_inception_is_close_and_says_so(inception, inception_weights):
    half = Inception(inception_weights, precision="bf16")
    assert half.digest == inception.digest, "of the weights as published"
    assert half.protocol() == inception.protocol() | {"extractor": "inception-bf16", "dtype": "bfloat16"}
    samples = as_samples(noise_pictures(8, seed=0))
    exact, rounded = inception(samples), half(samples)
    assert rounded.dtype == torch.float32
    assert 1e-4 < (rounded - exact).norm() / exact.norm() < 0.02
    with pytest.raises(ValueError, match="no precision 'fp16': choose fp32 or bf16"):
        Inception(inception_weights, precision="fp16")


@pytest.mark.parametrize("shape", [(24, 24), (32, 48), (299, 299), (31, 400)], ids=str)
def test_pictures_are_resized_as_torch_fidelity_does(shape):
    module = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    levels = torch.randint(256, (2, 3, *shape), generator=torch.Generator().manual_seed(0)).float()
    theirs = module.interpolate_bilinear_2d_like_tensorflow1x(levels, size=(299, 299), align_corners=False)
    assert torch.equal(extractors._resized_as_in_tensorflow_1(levels, 299), theirs)


def noise_pictures(count: int, *, seed: int) -> Tensor:
    brightness = torch.linspace(0.1, 1, count)[:, None, None, None]
    drawn = torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
    return (255 * brightness * drawn).byte()


def test_inception_rounds_and_takes_grey(inception, reference):
    level = torch.full((1, 1, 8, 8), 100)
    nearly = as_samples(level) + 0.4 / 127.5
    expected = reference(level.to(torch.uint8).expand(-1, 3, -1, -1))
    torch.testing.assert_close(inception(nearly), expected, rtol=1e-4, atol=1e-5 * expected.std())
    assert torch.equal(inception(nearly), inception(as_samples(level)))
    assert inception.protocol()["resize"] == "299 x 299, bilinear, TensorFlow 1"


def as_samples(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1


class Pixels(torch.utils.data.Dataset):
    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]


def test_missing_inception_weights_say_where_to_put_them(tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")
    with pytest.raises(FileNotFoundError, match=r"No Inception weights at .*absent\.pth: download http"):
        Inception(tmp_path / "absent.pth")

    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(RuntimeError, match=r"\(Network is unreachable\): put https.* at .*6726825d\.pth"):
        Inception()


def test_a_hostile_inception_file_is_not_executed(tmp_path):
    pytest.importorskip("torch_fidelity")
    trace = tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (trace,)

    torch.save({"weights": Hostile()}, tmp_path / "hostile.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile(), protocol=2))
    for name in ("hostile", "plain"):
        with pytest.raises(RuntimeError, match="does not hold torch-fidelity's Inception weights"):
            Inception(tmp_path / f"{name}.pth")
    assert not trace.exists()


def test_without_torch_fidelity_inception_says_what_to_install(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(extractors.importlib, "import_module", absent)
    with pytest.raises(ImportError, match=r"pip install litgan\[metrics\]"):
        load_extractor("inception")
