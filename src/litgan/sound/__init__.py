"""Sound: data, networks, metrics and rendering. The core does not import this package."""

from litgan.sound.clap import Clap
from litgan.sound.data import Sound
from litgan.sound.hifigan import HiFiGANDiscriminator, HiFiGANGenerator
from litgan.sound.metrics import SoundStatistics
from litgan.sound.networks import WaveGANDiscriminator, WaveGANGenerator
from litgan.sound.render import AudioBatch
from litgan.sound.tones import Tones

__all__ = [
    "AudioBatch",
    "Clap",
    "HiFiGANDiscriminator",
    "HiFiGANGenerator",
    "Sound",
    "SoundStatistics",
    "Tones",
    "WaveGANDiscriminator",
    "WaveGANGenerator",
]
