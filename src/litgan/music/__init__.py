"""Music: data, networks, metrics and rendering. A wing: the core does not import it."""

from litgan.music.autoregressive import CausalRollDiscriminator, RecurrentRollGenerator
from litgan.music.data import Music
from litgan.music.metrics import MusicStatistics
from litgan.music.networks import PianoRollDiscriminator, PianoRollGenerator
from litgan.music.render import RollBatch
from litgan.music.rolls import GivenTracks, PianoRolls, Scales

__all__ = [
    "CausalRollDiscriminator",
    "GivenTracks",
    "Music",
    "MusicStatistics",
    "PianoRollDiscriminator",
    "PianoRollGenerator",
    "PianoRolls",
    "RecurrentRollGenerator",
    "RollBatch",
    "Scales",
]
