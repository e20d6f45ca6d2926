"""Feature extractors: networks whose features the distances between two sets of samples compare.

`Inception` is the usual one (FID, KID). `digits` and `fashion` are small classifiers whose weights are part
of the package, so that a CPU measures in seconds and offline. Values of two extractors are not comparable,
hence every reported value comes with `FeatureExtractor.protocol`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from litgan.extras import require
from litgan.files import one_at_a_time
from litgan.metrics.pairs import image_metrics
from litgan.precision import full_float32

WEIGHTS = Path(__file__).parent / "weights"
CPU_BATCH = 8  # images of 299 pixels that go through Inception at once on a CPU
INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"


def weights_digest(module: nn.Module) -> str:
    """Hash of all parameters and buffers: names, dtypes, shapes and bytes. 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class FeatureExtractor(nn.Module, ABC):
    """Samples [N, *sample_shape] in [-1, 1] to float32 features [N, `dimension`].

    A subclass defines `name`, `dimension` and `features`, and calls `finalize` at the end of `__init__`. It
    takes images [N, 1 or 3, H, W] unless it overrides `check`. Metrics that features do not give (n-grams of
    a text, the scale of a melody) come from `extra_metrics`, which compares the `extras` of the samples.

    Frozen, always in evaluation mode, and without autocast and TF32; gradients still reach the samples. Never
    make it an attribute of a LightningModule: its weights would enter checkpoints, the EMA copy and DDP.
    """

    name: str  # the log key is metric/fd_<name>
    dimension: int
    size: int = 0  # side in pixels to which images are resized, 0 for samples of any size
    resize: str = ""  # how they are resized
    dtype: torch.dtype = torch.float32  # inside the network
    digest: str  # set by `finalize`
    extras_size: int = 0  # R, values that `extras` keeps of a sample
    extras_dtype: torch.dtype = torch.float32
    needs: tuple[str, ...] = ()  # attributes of the data set that `extra_metrics` reads

    def forward(self, samples: Tensor) -> Tensor:
        """Features, float32 [N, dimension].

        Raises ValueError: the samples have a shape that this extractor does not take.
        """
        self.check(samples)
        with full_float32(samples.device):
            return self.features(samples.float().clamp(-1, 1))

    def check(self, samples: Tensor) -> None:
        """Raises ValueError if the shape of a batch does not fit."""
        if samples.ndim != 4 or samples.shape[1] not in (1, 3):
            raise ValueError(
                f"The extractor {self.name!r} takes images [N, 1 or 3, H, W], not {list(samples.shape)}: "
                "choose one that fits this data set."
            )

    def setup(self, data: Any) -> None:
        """Takes from a data set what the features depend on besides the samples, e.g. a sample rate.

        Raises ValueError: the extractor was made for another data set.
        """
        if absent := [name for name in self.needs if not hasattr(data, name)]:
            raise ValueError(
                f"The extractor {self.name!r} needs the data's {absent[0]}, and this data has none: give a "
                "GANDataModule of its medium, or choose another extractor."
            )

    @abstractmethod
    def features(self, samples: Tensor) -> Tensor:
        """float32 [N, *sample_shape] within [-1, 1] -> float32 [N, dimension]."""

    def extras(self, samples: Tensor) -> Tensor:
        """The values of each sample that `extra_metrics` compares, `extras_dtype` [N, `extras_size`]."""
        return torch.empty(len(samples), self.extras_size, dtype=self.extras_dtype, device=samples.device)

    def extra_metrics(self, *, real: Tensor, fake: Tensor, data: Any) -> dict[str, float]:
        """More metrics: name (logged as metric/<name>) -> value.

        Args:
            real: extras of real samples, [at most neighbours_count, R], in no particular order.
            fake: extras of as many fakes.
            data: the data module, for properties of the data set: its alphabet, its rate, its text.
        """
        return {}

    def pair_metrics(self, *, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Metrics of pairs, each a fake and the real sample of the same condition: name -> values [N].

        Samples are [N, *sample_shape], as the generator makes them.
        """
        return image_metrics(real=real, fake=fake)

    def protocol(self) -> dict[str, Any]:
        """What others need to compute the same features."""
        resize = {"resize": f"{self.size} x {self.size}, {self.resize}"} if self.size else {}
        dtype = str(self.dtype).removeprefix("torch.")
        return {"extractor": self.name, "digest": self.digest, **resize, "dtype": dtype}

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stays in evaluation mode."""
        return super().train(False)

    def finalize(self) -> None:
        """Freezes the weights and sets `digest`."""
        self.requires_grad_(False).eval()
        self.digest = weights_digest(self)


class Classifier(FeatureExtractor):
    """A small convolutional classifier of gray images; its features are the input of its last layer.

    One 3 x 3 convolution per entry of `widths`, max-pooling between two of them, then the mean over all
    pixels: `dimension` is the last width. Colors are averaged to gray.

    Args:
        name: as in the log key.
        size: side of the images it was trained on.
        widths: channels, fine to coarse.
        num_classes: outputs of the last layer.
    """

    resize = "bilinear, antialias"

    def __init__(self, name: str, size: int, widths: Sequence[int], num_classes: int = 10) -> None:
        super().__init__()
        self.name, self.size, self.dimension = name, size, widths[-1]
        layers: list[nn.Module] = []
        for depth, (before, after) in enumerate(zip((1, *widths), widths), start=1):  # noqa: B905
            layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
            if depth < len(widths):
                layers.append(nn.MaxPool2d(2))  # first, so that the rest works on a quarter
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        # not "backbone": the digest in all protocols contains the name
        self.trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # 3 x faster on a CPU
        self.head = nn.Linear(self.dimension, num_classes)
        self.finalize()

    @classmethod
    def from_file(cls, path: str | Path) -> Classifier:
        """The classifier in a file of `benchmarks/train_extractors.py`.

        Raises ValueError: not such a file.
        """
        try:
            with safe_open(path, framework="pt") as file:
                classifier = cls(**json.loads(file.metadata()["classifier"]))
                classifier.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{path} holds no classifier ({type(error).__name__}): "
                "write it with `python benchmarks/train_extractors.py`."
            ) from error
        classifier.finalize()
        return classifier

    def features(self, samples: Tensor) -> Tensor:
        gray = samples.mean(1, keepdim=True)
        if gray.shape[-2:] != (self.size, self.size):
            gray = F.interpolate(gray, (self.size, self.size), mode="bilinear", antialias=True)
        return self.trunk(gray).mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """The most probable class, int64 [N], from features [N, dimension]."""
        with full_float32(features.device):
            return self.head(features.to(self.head.weight.device)).argmax(1).to(features.device)


class Embedded(Classifier):
    """A classifier that is part of the package, by its name: for recipes that need an object.

    Args:
        name: digits or fashion.
    """

    def __init__(self, name: Literal["digits", "fashion"]) -> None:
        nn.Module.__init__(self)
        with torch.device("cpu"):  # also where a checkpoint's networks are made on the meta device
            vars(self).update(vars(Classifier.from_file(WEIGHTS / f"{name}.safetensors")))


class Inception(FeatureExtractor):
    """Inception-v3 of the FID paper (Heusel et al., 2017), the 2048 features after the last pooling.

    Layers and TensorFlow-1 resize are torch-fidelity's, and so are distances up to float32 rounding (2e-6).
    It is faster, for batch norms are folded into convolutions and images are channels-last. Samples are
    rounded to the 256 levels of an image file; gray becomes three equal channels.

    Args:
        weights: a local file of torch-fidelity's weights; None is the one in torch's hub folder, which is
            downloaded (91 MB) if it is missing.
        precision: "bf16" for bfloat16 inside, about twice as fast on a CPU with such instructions. Features
            are then off by 0.5 %, so the extractor has another name, and no value of it is a FID.
        download: whether missing weights may be downloaded.

    Raises:
        ImportError: torch-fidelity is not installed.
        FileNotFoundError: the weights are missing, and no download was allowed.
        RuntimeError: the download failed, or the file holds other weights.
        ValueError: another precision.
    """

    size, dimension = 299, 2048
    resize = "bilinear, TensorFlow 1"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        precision: Literal["fp32", "bf16"] = "fp32",
        download: bool = True,
    ) -> None:
        super().__init__()
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"Inception has no precision {precision!r}: choose fp32 or bf16.")
        self.name = "inception" if precision == "fp32" else "inception-bf16"
        self.dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        module = require("torch_fidelity.feature_extractor_inceptionv3", "metrics")
        self.resized = module.interpolate_bilinear_2d_like_tensorflow1x
        path = _inception_weights(weights, download)
        try:  # torch-fidelity unpickles without restriction: refuse whatever is not plain tensors first
            torch.load(path, map_location="cpu", weights_only=True)
            self.network = module.FeatureExtractorInceptionV3("inception", ["2048"], str(path))
        except (pickle.UnpicklingError, EOFError, RuntimeError, TypeError, AttributeError) as error:
            raise RuntimeError(
                f"{path} does not hold torch-fidelity's Inception weights: put {INCEPTION_URL} in its place."
            ) from error
        self.finalize()  # here, for the digest is that of the published weights
        self.network = _fold(self.network).to(self.dtype).to(memory_format=torch.channels_last)

    def features(self, samples: Tensor) -> Tensor:
        levels = ((samples + 1) * 127.5).round()
        # on a CPU few images at once fit into its cache: 5 % faster, and two orders less memory
        size = CPU_BATCH if samples.device.type == "cpu" else max(1, len(samples))
        return torch.cat([self._pooled(part) for part in levels.split(size)])

    def _pooled(self, levels: Tensor) -> Tensor:
        pixels = self.resized(levels, (self.size, self.size), align_corners=False).sub(128).div(128)
        return self.network(pixels.to(self.dtype).expand(-1, 3, -1, -1)).float()


def _fold(network: nn.Module) -> nn.Sequential:
    """torch-fidelity's layers up to the features, each batch norm folded into the convolution before it."""
    blocks: list[Any] = list(network.double().modules())  # double, so that folding rounds once
    for block in blocks:
        if isinstance(getattr(block, "bn", None), nn.BatchNorm2d):
            block.conv, block.bn = nn.utils.fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
    return nn.Sequential(*[layer for name, layer in network.named_children() if name != "fc"], nn.Flatten())


def _inception_weights(weights: str | Path | None, download: bool) -> Path:
    hub = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_URL.rsplit("/", 1)[1]
    path = Path(weights).expanduser() if weights else hub
    if path.is_file():
        return path
    if weights or not download:
        raise FileNotFoundError(
            f"No Inception weights at {path}: put {INCEPTION_URL} there, or leave the path out and allow the "
            "download (litgan evaluate --download)."
        )
    try:
        with one_at_a_time(path.parent):  # other ranks wait for the one that downloads
            if not path.is_file():
                torch.hub.download_url_to_file(
                    INCEPTION_URL, str(path), hash_prefix="6726825d", progress=False
                )
    except (OSError, RuntimeError) as error:  # no network, no space, or a broken file
        raise RuntimeError(
            f"Could not download the Inception weights ({error}): put {INCEPTION_URL} at {path}, "
            "or measure with the extractor 'digits' or 'fashion'."
        ) from error
    return path


EXTRACTORS: dict[str, Callable[[bool], FeatureExtractor]] = {  # with or without a download
    "inception": lambda download: Inception(download=download),
    "inception-bf16": lambda download: Inception(precision="bf16", download=download),
    "digits": lambda _: Embedded("digits"),
    "fashion": lambda _: Embedded("fashion"),
}


def load_extractor(which: str | FeatureExtractor, *, download: bool = True) -> FeatureExtractor:
    """The given extractor, or that of a name, whose weights may be downloaded if they are missing."""
    if isinstance(which, FeatureExtractor):
        return which
    if which not in EXTRACTORS:
        raise ValueError(f"No feature extractor {which!r}: choose one of {', '.join(EXTRACTORS)}.")
    return EXTRACTORS[which](download)
