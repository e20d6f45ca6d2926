"""Feature extractors: networks whose features the distances between two sets of samples compare.

`Inception` is the field's (FID, KID); `digits` and `fashion` are small classifiers whose weights ship
with the package, so that a CPU without a network can measure in seconds. Numbers from two extractors
are never comparable, hence `FeatureExtractor.protocol`, which travels with every reported value.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights"
CPU_PASS = 8  # pictures of 299 px that go through Inception at once on a CPU
INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"


def weights_digest(module: nn.Module) -> str:
    """Hash of every parameter and buffer: names, dtypes, shapes and bytes. 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class FeatureExtractor(nn.Module, ABC):
    """Samples [N, *sample_shape] in [-1, 1] to float32 features [N, `dimension`].

    Frozen, always in evaluation mode (also when a parent calls `train()`), and blind to autocast.
    Gradients still flow to the samples. Never make it an attribute of a LightningModule: its weights
    would enter checkpoints, the EMA copy and DDP.

    Takes images [N, 1 or 3, H, W] unless `check` says otherwise. Metrics of a medium that features do not
    give (n-grams of a text, the scale of a melody) come from `extra_metrics`, which compares what `extras`
    keeps of each sample.
    """

    name: str  # suffix of the log key, e.g. "digits" -> metric/fd_digits
    dimension: int
    size: int = 0  # side of the square that the network sees, 0 for samples of any size
    resize: str = ""  # how samples of another size get to `size`
    dtype: torch.dtype = torch.float32  # inside the network
    digest: str  # set by `finalize`
    extras_size: int = 0  # R, values that `extras` keeps of a sample
    extras_dtype: torch.dtype = torch.float32

    def forward(self, samples: Tensor) -> Tensor:
        """Features, float32 [N, dimension].

        Raises:
            ValueError: the samples are not what this extractor looks at.
        """
        self.check(samples)
        with torch.autocast(samples.device.type, enabled=False):
            return self.features(samples.float().clamp(-1, 1))

    def check(self, samples: Tensor) -> None:
        """Compares the shape of a batch with what this extractor looks at.

        Raises:
            ValueError: it is another medium's.
        """
        if samples.ndim != 4 or samples.shape[1] not in (1, 3):
            raise ValueError(
                f"The extractor {self.name!r} looks at images [N, 1 or 3, H, W], not at "
                f"{list(samples.shape)}: choose one that fits this data set."
            )

    def setup(self, data: Any) -> None:
        """Takes from a data set what the features depend on besides the samples; nothing unless overridden.

        Raises:
            ValueError: the extractor was made for another data set.
        """

    @abstractmethod
    def features(self, samples: Tensor) -> Tensor:
        """float32 [N, *sample_shape] within [-1, 1] -> float32 [N, dimension]."""

    def extras(self, samples: Tensor) -> Tensor:
        """What `extra_metrics` compares of each sample, `extras_dtype` [N, `extras_size`]."""
        return torch.empty(len(samples), self.extras_size, dtype=self.extras_dtype, device=samples.device)

    def extra_metrics(self, *, real: Tensor, fake: Tensor, data: Any) -> dict[str, float]:
        """Metrics of the medium: name (logged as metric/<name>) -> value.

        Args:
            real: extras of real samples, [at most neighbours_count, R]; in no particular order.
            fake: extras of as many fakes.
            data: the data module, for what only the data set knows: its alphabet, its rate, its text.
        """
        return {}

    def protocol(self) -> dict[str, Any]:
        """What somebody else needs to get the same features."""
        resize = {"resize": f"{self.size} x {self.size}, {self.resize}"} if self.size else {}
        dtype = str(self.dtype).removeprefix("torch.")
        return {"extractor": self.name, "digest": self.digest, **resize, "dtype": dtype}

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Evaluation mode, whatever the parent asks for."""
        return super().train(False)

    def finalize(self) -> None:
        """Fixes the weights and takes their digest: the last line of a subclass's `__init__`."""
        self.requires_grad_(False).eval()
        self.digest = weights_digest(self)


class Classifier(FeatureExtractor):
    """A small convolutional classifier of grey images; its features are what its last layer sees.

    One 3 x 3 convolution per entry of `widths`, the picture halved between two of them, then the mean
    over the picture: `dimension` is the last width. Colour is averaged to grey.

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
        self.trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # on CPU 3 x faster
        self.head = nn.Linear(self.dimension, num_classes)
        self.finalize()

    @classmethod
    def from_file(cls, path: str | Path) -> Classifier:
        """The classifier that `benchmarks/train_extractors.py` wrote: the file says how it is built.

        Raises:
            ValueError: not such a file.
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
        grey = samples.mean(1, keepdim=True)
        if grey.shape[-2:] != (self.size, self.size):
            grey = F.interpolate(grey, (self.size, self.size), mode="bilinear", antialias=True)
        return self.trunk(grey).mean((2, 3))

    def judge(self, features: Tensor) -> Tensor:
        """Logits of the classes from features, float32 [N, num_classes]."""
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.to(self.head.weight.device))

    def logits(self, samples: Tensor) -> Tensor:
        """Logits of the classes, float32 [N, num_classes]."""
        return self.judge(self(samples))

    def classify(self, samples: Tensor) -> Tensor:
        """The most probable class of each sample, int64 [N]."""
        return self.logits(samples).argmax(1)


class Inception(FeatureExtractor):
    """Inception-v3 of the FID paper (Heusel et al., 2017), the 2048 features after the last pooling.

    The layers and the TensorFlow-1 resize are torch-fidelity's, and so are the numbers, to what float32 keeps
    of a distance (2e-6): each batch norm is folded into its convolution, and pictures lie channels last.
    Samples are rounded to the 256 levels that a saved picture has; grey becomes three equal channels.

    Args:
        weights: a local file of torch-fidelity's weights; None looks in torch's hub folder and
            downloads them (91 MB) when they are not there.
        precision: "bf16" for bfloat16 inside, about twice as fast on a CPU that has instructions for it.
            Features are then off by 0.5 %, so it goes by another name, and no value of it is a FID.
        download: whether weights that are missing may be downloaded.

    Raises:
        ImportError: torch-fidelity is not installed.
        FileNotFoundError: the weights are not there, and no download was allowed.
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
        self.name = "inception" if precision == "fp32" else f"inception-{precision}"
        self.dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        try:
            module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        except ImportError as error:
            raise ImportError(
                "The inception extractor needs torch-fidelity: pip install litgan[metrics]."
            ) from error
        path = _inception_weights(weights, download)
        try:  # torch-fidelity unpickles without restraint: refuse first whatever is not plain tensors
            torch.load(path, map_location="cpu", weights_only=True)
            self.network = module.FeatureExtractorInceptionV3("inception", ["2048"], str(path))
        except (pickle.UnpicklingError, EOFError, RuntimeError, TypeError, AttributeError) as error:
            raise RuntimeError(
                f"{path} does not hold torch-fidelity's Inception weights: put {INCEPTION_URL} in its place."
            ) from error
        self.finalize()  # the digest is that of the weights as published
        self.network = _folded(self.network).to(self.dtype).to(memory_format=torch.channels_last)

    def features(self, samples: Tensor) -> Tensor:
        levels = ((samples + 1) * 127.5).round()
        # on a CPU few pictures at once stay in its cache: 5 % faster, and two orders less memory
        at_once = CPU_PASS if samples.device.type == "cpu" else max(1, len(samples))
        return torch.cat([self._pooled(few) for few in levels.split(at_once)])

    def _pooled(self, levels: Tensor) -> Tensor:
        pixels = _resized_as_in_tensorflow_1(levels, self.size).sub(128).div(128)
        return self.network(pixels.to(self.dtype).expand(-1, 3, -1, -1)).float()


def _folded(network: nn.Module) -> nn.Sequential:
    """torch-fidelity's layers up to the features, each batch norm within the convolution before it."""
    blocks: list[Any] = list(network.double().modules())  # double, so that folding rounds once
    for block in blocks:
        if isinstance(getattr(block, "bn", None), nn.BatchNorm2d):
            block.conv, block.bn = nn.utils.fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
    layers = [layer for name, layer in network.named_children() if name != "fc"]
    return nn.Sequential(*layers, nn.Flatten())


def _resized_as_in_tensorflow_1(pixels: Tensor, size: int) -> Tensor:
    """Bilinear, [N, C, H, W] to [N, C, size, size], pixel k of the result at k / size of the side.

    As `torch_fidelity.interpolate_compat_tensorflow` to the last bit, a side at a time: a fifth of its time.
    """
    grid = pixels.permute(0, 2, 3, 1)  # neighbouring channels lie together, as the convolutions want them
    for axis in (2, 1):
        length = grid.shape[axis]
        place = torch.arange(size, device=grid.device, dtype=torch.float32) * (length / size)
        low = place.long()
        share = (place - low).view(-1, *[1] * (3 - axis))
        before = grid.index_select(axis, low)
        after = grid.index_select(axis, (low + 1).clamp(max=length - 1))
        grid = after.sub_(before).mul_(share).add_(before)
    return grid.permute(0, 3, 1, 2)


def _inception_weights(weights: str | Path | None, download: bool) -> Path:
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"No Inception weights at {path}: download {INCEPTION_URL} and give its path."
            )
        return path
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_URL.rsplit("/", 1)[1]
    if not path.is_file() and not download:
        raise FileNotFoundError(
            f"No Inception weights at {path}, and no download was allowed: put {INCEPTION_URL} there, or "
            "allow it (litgan evaluate --download)."
        )
    if not path.is_file():
        try:
            os.makedirs(path.parent, exist_ok=True)
            torch.hub.download_url_to_file(INCEPTION_URL, str(path), hash_prefix="6726825d", progress=False)
        except (OSError, RuntimeError) as error:  # no network, no space, or a broken file
            raise RuntimeError(
                f"Could not download the Inception weights ({error}): put {INCEPTION_URL} at {path}, "
                "or measure with the extractor 'digits' or 'fashion'."
            ) from error
    return path


EXTRACTORS: dict[str, Callable[[bool], FeatureExtractor]] = {  # with or without a download
    "inception": lambda download: Inception(download=download),
    "inception-bf16": lambda download: Inception(precision="bf16", download=download),
    "digits": lambda _: Classifier.from_file(WEIGHTS / "digits.safetensors"),
    "fashion": lambda _: Classifier.from_file(WEIGHTS / "fashion.safetensors"),
}


def load_extractor(which: str | FeatureExtractor, *, download: bool = True) -> FeatureExtractor:
    """The extractor of that name, or the one given.

    Args:
        which: name or extractor.
        download: whether published weights that are missing here may be downloaded.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(which, FeatureExtractor):
        return which
    if which not in EXTRACTORS:
        raise ValueError(f"No feature extractor {which!r}: choose one of {', '.join(EXTRACTORS)}.")
    return EXTRACTORS[which](download)
