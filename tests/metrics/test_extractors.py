"""The shipped extractors reach their stated accuracies, and Inception is torch-fidelity's."""

from __future__ import annotations

import importlib
import itertools
import json
import pickle
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture(scope="module")
def digits() -> Classifier:
    return load_extractor("digits")


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory) -> Path:
    """Random weights of torch-fidelity's architecture."""
    pytest.importorskip("torch_fidelity")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    importlib.import_module("evaluation").made_up_weights(path)
    return path


def pictures(count: int) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def stated(name: str) -> dict[str, str]:
    """The metadata of a shipped file."""
    with safe_open(WEIGHTS / f"{name}.safetensors", framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_files_are_small_and_contain_their_origin(name):
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 500_000
    assert json.loads(stated(name)["recipe"]) == json.loads(json.dumps(vars(RECIPES[name])))
    assert {"accuracy", "seed", "torch", "script", "data"} <= stated(name).keys()
    assert load_extractor(name).dimension == RECIPES[name].widths[-1]


fashion_is_there = pytest.mark.skipif(
    not Path(DEBIAN_FASHION_MNIST).is_dir(), reason="dataset-fashion-mnist is not installed"
)


@pytest.mark.parametrize(
    ("name", "source", "count", "tolerance", "minimum"),
    [
        ("digits", Digits, 360, 1e-4, 0.98),
        # one image on the border may fall either way on another processor
        pytest.param(
            "fashion", FashionMNIST, 10_000, 3e-4, 0.91, marks=[fashion_is_there, pytest.mark.heavy]
        ),
    ],
)
def test_shipped_classifiers_reach_their_stated_accuracy(name, source, count, tolerance, minimum):
    data = source()
    _, unseen = labelled(data)
    assert len(unseen[1]) == count and stated(name)["data"] == data.fingerprint
    expected = float(stated(name)["accuracy"])
    assert accuracy(load_extractor(name), *unseen) == pytest.approx(expected, abs=tolerance)
    assert expected >= minimum


def test_the_training_script_learns():
    """A tenth of the schedule suffices for most digits."""
    known, unseen = labelled(Digits())
    recipe = RECIPES["digits"]
    quick = type(recipe)(**{**vars(recipe), "epochs": 3})
    before = accuracy(Classifier(recipe.name, recipe.size, recipe.widths), *unseen)
    after = accuracy(train(quick, *known, seed=1), *unseen)
    assert before < 0.3 and after > 0.85


def test_shifted_pictures_lose_only_their_edge():
    samples = pictures(64)
    offsets = {
        (down, right)
        for moved, original in zip(
            shifted(samples, 1, torch.Generator().manual_seed(0)), samples, strict=True
        )
        for down, right in itertools.product((-1, 0, 1), repeat=2)
        if torch.equal(moved[0, 1:-1, 1:-1], original[0, 1 + down : 7 + down, 1 + right : 7 + right])
    }
    assert len(offsets) == 9


def test_features_of_a_classifier(digits):
    gray = pictures(5)
    features = digits(gray)
    assert features.shape == (5, digits.dimension) and features.dtype == torch.float32
    assert digits.classify(features).tolist() == digits.head(features).argmax(1).tolist()
    torch.testing.assert_close(digits(gray.expand(-1, 3, -1, -1)), features)  # colors are averaged
    doubled = gray.repeat_interleave(2, 2).repeat_interleave(2, 3)
    shrunk = nn.functional.interpolate(doubled, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(digits(doubled), digits(shrunk))
    torch.testing.assert_close(digits(3 * gray), digits((3 * gray).clamp(-1, 1)))  # as in an image file


def test_neither_autocast_nor_tf32_reaches_the_extractor(digits):
    expected, found = digits(pictures(4)), []
    handles = [
        part.register_forward_hook(
            lambda _, __, made: found.append((made.dtype, torch.get_float32_matmul_precision()))
        )
        for part in (digits.trunk, digits.head)
    ]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(digits(pictures(4)), expected)
            digits.classify(expected)
    finally:
        torch.set_float32_matmul_precision(before)
    for handle in handles:
        handle.remove()
    assert found == [(torch.float32, "highest")] * 2


def test_an_extractor_stays_frozen_and_in_evaluation_mode(digits):
    parent = nn.ModuleDict({"extractor": digits}).train()
    assert not any(part.training for part in parent["extractor"].modules())
    assert not any(parameter.requires_grad for parameter in digits.parameters())
    before = digits.digest
    digits(pictures(8))
    assert extractors.weights_digest(digits) == before
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


def test_bad_names_and_shapes_are_rejected(digits):
    assert load_extractor(digits) is digits
    with pytest.raises(ValueError, match="'digit': choose one of inception, inception-bf16, digits"):
        load_extractor("digit")
    with pytest.raises(ValueError, match="'fp16'"):
        Inception(precision="fp16")
    for shape in ((4, 2), (4, 2, 8, 8)):
        with pytest.raises(ValueError, match=rf"'digits' takes images .* not {re.escape(str([*shape]))}"):
            digits(torch.zeros(shape))


def test_files_that_hold_no_classifier_are_rejected(tmp_path):
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
def test_inceptions_features_are_torch_fidelitys(inception, reference):
    """The features of uint8 images, and the distance to float32's own 1e-6."""
    real, fake = noise_pictures(9, seed=0), noise_pictures(8, seed=1)  # nine: more than one batch on a CPU
    ours = {"real": inception(as_samples(real)), "fake": inception(as_samples(fake))}
    theirs = {"real": reference(real), "fake": reference(fake)}
    for side in ours:
        torch.testing.assert_close(ours[side], theirs[side], rtol=1e-4, atol=1e-5 * theirs[side].std())
    assert ours["real"].dtype == torch.float32 and ours["real"].shape == (9, 2048)
    distance = frechet_distance(**ours).item()
    assert distance == pytest.approx(frechet_distance(**theirs).item(), rel=1e-6)


@pytest.mark.heavy
def test_bf16_inception_is_close_and_has_another_name(inception, inception_weights):
    half = Inception(inception_weights, precision="bf16")
    assert half.digest == inception.digest, "of the weights as published"
    assert half.protocol() == inception.protocol() | {"extractor": "inception-bf16", "dtype": "bfloat16"}
    samples = as_samples(noise_pictures(8, seed=0))
    exact, rounded = inception(samples), half(samples)
    assert rounded.dtype == torch.float32
    assert 1e-4 < (rounded - exact).norm() / exact.norm() < 0.02


def noise_pictures(count: int, *, seed: int) -> Tensor:
    brightness = torch.linspace(0.1, 1, count)[:, None, None, None]
    drawn = torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
    return (255 * brightness * drawn).byte()


def test_inception_rounds_and_takes_gray(inception, reference):
    level = torch.full((1, 1, 8, 8), 100)
    nearly = as_samples(level) + 0.4 / 127.5
    expected = reference(level.to(torch.uint8).expand(-1, 3, -1, -1))
    torch.testing.assert_close(inception(nearly), expected, rtol=1e-4, atol=1e-5 * expected.std())
    assert torch.equal(inception(nearly), inception(as_samples(level)))
    assert inception.protocol()["resize"] == "299 x 299, bilinear, TensorFlow 1"


def as_samples(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1


def test_missing_inception_weights_are_named_with_their_place(tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")
    with pytest.raises(FileNotFoundError, match=r"No Inception weights at .*absent\.pth: put http"):
        Inception(tmp_path / "absent.pth")

    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(RuntimeError, match=r"\(Network is unreachable\): put https.* at .*6726825d\.pth"):
        Inception()


def test_of_ranks_that_miss_the_inception_weights_one_downloads(tmp_path, monkeypatch):
    """Threads stand for them: a lock on a folder belongs to who has opened it."""
    together, downloads = threading.Barrier(3), []

    def download(url: str, path: str, **options: object) -> None:
        downloads.append(url)
        time.sleep(0.2)
        Path(path).touch()

    def rank(_: int) -> Path:
        together.wait(60)
        return extractors._inception_weights(None, download=True)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with ThreadPoolExecutor(3) as ranks:
        paths = set(ranks.map(rank, range(3)))
    assert len(downloads) == len(paths) == 1 and paths.pop().is_file()


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


def test_without_torch_fidelity_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ImportError, match=r"pip install litgan\[metrics\]"):
        load_extractor("inception")
