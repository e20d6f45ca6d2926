"""Sound: data, networks, metrics and rendering. The core does not import this package."""

from litgan.sound.augment import SoundAugment
from litgan.sound.clap import Clap
from litgan.sound.codec import WaveCodec
from litgan.sound.data import Sound
from litgan.sound.hifigan import HiFiGANDiscriminator, HiFiGANGenerator
from litgan.sound.istft import ISTFTGenerator
from litgan.sound.mel import MelSpectrogram
from litgan.sound.metrics import SoundStatistics
from litgan.sound.networks import WaveGANDiscriminator, WaveGANGenerator
from litgan.sound.reconstruction import MelL1, MultiResolutionSTFT, mel_l1, multi_resolution_stft
from litgan.sound.render import AudioBatch
from litgan.sound.spectrograms import SpectrogramDiscriminator
from litgan.sound.tones import Tones
from litgan.sound.vocos import VocosGenerator

__all__ = [
    "AudioBatch",
    "Clap",
    "HiFiGANDiscriminator",
    "HiFiGANGenerator",
    "ISTFTGenerator",
    "MelL1",
    "MelSpectrogram",
    "MultiResolutionSTFT",
    "Sound",
    "SoundAugment",
    "SoundStatistics",
    "SpectrogramDiscriminator",
    "Tones",
    "VocosGenerator",
    "WaveCodec",
    "WaveGANDiscriminator",
    "WaveGANGenerator",
    "mel_l1",
    "multi_resolution_stft",
]
