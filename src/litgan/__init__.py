"""litgan: adversarial training with PyTorch Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litgan.gan import GAN

__version__ = "0.1.0"
__all__ = ["GAN", "__version__"]


def __getattr__(name: str) -> Any:
    """GAN, imported when it is asked for: `litgan --help` shall not wait for torch."""
    if name == "GAN":
        from litgan.gan import GAN

        return GAN
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
