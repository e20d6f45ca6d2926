"""litgan: adversarial training with PyTorch Lightning."""

from litgan.gan import GAN

__version__ = "0.1.0"
__all__ = ["GAN", "__version__"]
