"""Sound: data, networks, metrics and rendering. A wing: the core does not import it."""

from litgan.sound.clap import Clap
from litgan.sound.data import Sound
from litgan.sound.metrics import SoundStatistics
from litgan.sound.networks import HiFiGANDiscriminator, WaveGANDiscriminator, WaveGANGenerator
from litgan.sound.render import Sounds
from litgan.sound.tones import Tones

__all__ = [
    "Clap",
    "HiFiGANDiscriminator",
    "Sound",
    "SoundStatistics",
    "Sounds",
    "Tones",
    "WaveGANDiscriminator",
    "WaveGANGenerator",
]
