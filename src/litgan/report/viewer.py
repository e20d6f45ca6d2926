"""What the run's samples look and sound like: one slider for every track, the reals beside them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from litgan.report.curves import number
from litgan.report.files import Embedded
from litgan.report.run import Run

PICTURES = {  # kind -> title, what it shows
    "samples": (
        "Samples",
        "The same latents all along; at the bottom a walk from the first of them to the second.",
    ),
    "feedback": (
        "Feedback",
        "What the discriminator sends back for each sample: red asks for less of what is there (darker, "
        "quieter, another character), blue for more; points are pushed along their arrows.",
    ),
}
STILLS = {
    "telescope": "How strong the feedback is on its way back, block by block: from the discriminator's "
    "output at the top through the samples down to the generator's latents.",
}
MEDIA = {"wav": "Listen", "mid": "MIDI", "txt": "Read"}


def samples(run: Run, shown: Embedded) -> str:
    """Grids over time beside the reals, with a slider; each kind of picture on a track of its own."""
    kinds = [kind for kind, frames in shown.pictures.items() if frames]
    kinds.sort(key=lambda kind: [*PICTURES, kind].index(kind))
    if not kinds and not shown.real_picture and not shown.stills and not any(shown.players.values()):
        return ""
    frames: list[Iterable[int]] = [*shown.pictures.values(), *shown.players.values()]
    moments = sorted({at for found in frames for at in found})
    figures = [track(kind, shown.pictures[kind], run) for kind in kinds]
    if shown.real_picture:
        figures.insert(
            1 if "samples" in kinds else 0,
            f"<figure><figcaption><h3>Reals</h3></figcaption>{picture(shown.real_picture, 'Real samples')}"
            "<p>What the generator is to learn.</p></figure>",
        )
    media = [listen(kind, shown) for kind in MEDIA if shown.players.get(kind) or kind in shown.real_players]
    slider = ""
    if len(moments) > 1:
        steps = ",".join(map(str, moments))
        slider = (
            f'<div class="slider" hidden data-moments="{steps}"><button type="button" aria-label="Play">'
            f'</button><input type="range" min="0" max="{len(moments) - 1}" value="{len(moments) - 1}" '
            'aria-label="Moment"><output></output></div>'
        )
    return (
        f'<section id="samples"><h2>Samples</h2>{slider}<div class="stage">{"".join(figures)}</div>'
        f"{''.join(media)}{stills(shown)}</section>"
    )


def track(kind: str, frames: dict[int, tuple[str, int]], run: Run) -> str:
    """The pictures of one kind, of which the slider shows one at a time."""
    title, meaning = PICTURES.get(kind, (kind.replace("_", " ").capitalize(), ""))
    distances = dict(run.points(run.distance)) if run.distance else {}
    shown = []
    for at, frame in sorted(frames.items()):
        caption = f"after {at:,} images"
        if at in distances and kind == "samples":
            caption += f", {str(run.distance).removeprefix('metric/')} {number(distances[at])}"
        hidden = "" if at == max(frames) else " hidden"
        shown.append(
            f'<div class="frame" data-at="{at}"{hidden}><span class="when">{escape(caption)}</span>'
            f"{picture(frame, f'{title} {caption}')}</div>"
        )
    return (
        f'<figure class="track"><figcaption><h3>{escape(title)}</h3></figcaption>'
        f'<div class="frames">{"".join(shown)}</div>{explain(meaning)}</figure>'
    )


def picture(shown: tuple[str, int], name: str) -> str:
    return f'<img src="{shown[0]}" width="{shown[1]}" alt="{escape(name)}">'


def stills(shown: Embedded) -> str:
    """Pictures of the whole run."""
    figures = [
        f"<figure><figcaption><h3>{escape(kind.capitalize())}</h3></figcaption>{picture(still, kind)}"
        f"{explain(STILLS.get(kind, ''))}</figure>"
        for kind, still in shown.stills.items()
    ]
    return f'<div class="stage stills">{"".join(figures)}</div>' if figures else ""


def explain(sentence: str) -> str:
    return f"<p>{sentence}</p>" if sentence else ""


def listen(kind: str, shown: Embedded) -> str:
    """Players of one kind: the samples' at the slider's moment, and the reals'."""
    frames = shown.players.get(kind, {})
    parts = [
        f'<div class="frame" data-at="{at}"{"" if at == max(frames) else " hidden"}>'
        f'<span class="when">after {at:,} images</span>{play(kind, content, f"{at:09d}")}</div>'
        for at, content in sorted(frames.items())
    ]
    reals = ""
    if kind in shown.real_players:
        reals = f'<div><span class="when">reals</span>{play(kind, shown.real_players[kind], "reals")}</div>'
    return (
        f'<div class="media"><h3>{MEDIA[kind]}</h3><div class="pair">'
        f'<div class="track"><div class="frames">{"".join(parts)}</div></div>{reals}</div></div>'
    )


def play(kind: str, content: str, name: str) -> str:
    if kind == "txt":
        return f"<pre>{escape(content)}</pre>"
    if kind == "wav":
        return f'<audio controls preload="none" src="{content}"></audio>'
    return f'<a class="file" download="{escape(name)}.{kind}" href="{content}">{escape(name)}.{kind}</a>'
