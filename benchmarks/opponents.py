"""What a GAN of each medium has to beat: models without a network, fitted to the same training split.

Each is a function of (data, count, seed) that gives samples [count, *sample_shape] as the discriminator
sees them.
"""

from __future__ import annotations
