"""What a VAE is, in pictures, one command each; each trains what it needs in minutes, or loads it.

    python samples/essay.py latents     # the plane of digits: reconstruction alone, KL alone, both
    python samples/essay.py paths       # an autoencoder beside a VAE on the way between two digits
    python samples/essay.py walk        # what lies where on that plane
    python samples/essay.py glasses     # a direction of the latent space, added and taken away
    python samples/essay.py melodies    # the way between two melodies, drawn by the same function

Pictures stand in samples/essay; runs in ROOM, beside the current folder, and go on where they were.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from seqvae import gallery
from seqvae.corpus import Corpus, prepare
from seqvae.evaluation import held, posteriors
from seqvae.pictures import Framing, avatars
from seqvae.pipeline import Pipeline
from seqvae.song import Song
from seqvae.train import train

OUT, ROOM = Path(__file__).parent / "essay", Path("essay-runs")
PLANE = {"network": "dense", "widths": "256,128", "latent": "2", "steps": "4000", "evaluate_every": "1000"}
DIGITS = PLANE | {"latent": "16", "likelihood": "gaussian"}
AUTOENCODER = {"autoencoder": "1000000"}  # no noise, no KL, to the end
KINDS = {"reconstruction alone": {"beta": "0"}, "KL alone": {"beta": "1000"}, "both": {"beta": "1"}}


def digits() -> Corpus:
    if not (ROOM / "digits" / "corpus.json").exists():
        prepare("digits", ROOM / "digits", codec=Framing(), valid=0.1, test=0.2)
    return Corpus.open(ROOM / "digits")


def trained(name: str, settings: dict[str, str]):
    best = train(digits().folder, "pictures", ROOM / name.replace(" ", "-"), settings, resume=True)
    return Pipeline.from_pretrained(best)


def pictures_of(corpus: Corpus, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """All of a split, and their labels."""
    tunes = corpus.split(split).tunes
    labels = np.array([int(corpus.labels[tune]) for tune in tunes])
    return held(corpus, split, np.arange(len(tunes))), labels


def latents() -> None:
    images, labels = pictures_of(digits(), "train")
    panels = []
    for name, settings in KINDS.items():
        model = trained(name, PLANE | settings).saved.model
        posterior = posteriors(model, digits(), "train", np.arange(len(images)))
        z = posterior.sample(torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0)))
        panels.append(gallery.Panel(name, z.numpy(), labels))
    gallery.latent_map(panels, OUT / "latents.png", [str(digit) for digit in range(10)])


def paths() -> None:
    images, labels = pictures_of(digits(), "test")
    rows, titles = [], []
    kinds = {"autoencoder": AUTOENCODER, "VAE": {}}
    models = {name: trained(f"paths {name}", DIGITS | settings) for name, settings in kinds.items()}
    for a, b in ((0, 1), (2, 7), (3, 9)):
        ends = [images[int(np.flatnonzero(labels == digit)[0])] for digit in (a, b)]
        for name, model in models.items():
            rows.append(model.interpolate(*ends, 11))
            titles.append(f"{a} to {b}, {name}")
    gallery.grid(rows, OUT / "paths.png", titles)


def walk() -> None:
    gallery.grid(trained("both", PLANE | KINDS["both"]).walk(17), OUT / "walk.png", gap=0)


def glasses() -> None:
    model = Pipeline.from_pretrained("avatars")
    side = model.codec.height
    kinds = [[image for image, _ in avatars(1000, 1, side, worn)] for worn in (False, True)]
    attribute = model.attribute(*kinds)
    rows, titles, scales = [], [], (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
    for worn in (False, True):
        for image, _ in list(avatars(4, 2, side, worn)):
            places = [-scale if worn else scale for scale in scales]
            rows.append([image, *model.shift(image, [[(attribute, place)] for place in places])])
            titles.append("taken away" if worn else "added")
    gallery.grid(rows, OUT / "glasses.png", titles, ["the face", *(f"{scale:g}" for scale in scales)])


def roll(song: Song, low: int, high: int, beats: float, ticks: int = 24, thick: int = 3) -> np.ndarray:
    """The notes as a picture (thick * (high - low + 1), beats * ticks, 1), dark on white."""
    page = np.full((high - low + 1, round(beats * ticks), 1), 255, np.uint8)
    for note in song.parts[0].notes:
        start, stop = round(note.onset * ticks), round((note.onset + note.duration) * ticks)
        page[high - note.pitch, start : max(start + 1, stop - 2)] = 60
    return page.repeat(thick, 0)


def melodies() -> None:
    model, data = Pipeline.from_pretrained("melody"), Path(__file__).parent.parent / "data"
    morph = model.interpolate(data / "crab_apple_lane.mid", data / "heron_weather.mid", 9)
    pitches = [note.pitch for song in morph.songs for note in song.parts[0].notes]
    beats = max(song.beats for song in morph.songs)
    rows = [[roll(song, min(pitches), max(pitches), beats)] for song in morph.songs]
    gallery.grid(rows, OUT / "melodies.png", [f"{step / 8:.0%}" for step in range(9)])


STORIES = {one.__name__: one for one in (latents, paths, walk, glasses, melodies)}
if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or STORIES:
        STORIES[name]()
