"""Melodies: what a seed fixes, what a song keeps, and where the ends of a path lie."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DATA, nowhere
from torch import Tensor

from seqvae import files
from seqvae.attributes import MEASURES
from seqvae.checkpoint import Saved, build_model, save_model
from seqvae.codecs import NotesCodec, VoicesCodec
from seqvae.codecs.bars import BarsCodec
from seqvae.corpus import collate
from seqvae.decoding import Sampling
from seqvae.engine import Place, find_model
from seqvae.harmony import classes, parse_chords
from seqvae.latent import Mixture, Succession
from seqvae.likelihood import sequence_nll
from seqvae.melodies import Melodies, Morph, cells, pace
from seqvae.metrics.music import chord_share
from seqvae.model import Size
from seqvae.pipeline import Pipeline
from seqvae.song import (
    ENSEMBLES,
    Key,
    Metre,
    Note,
    Part,
    Phrase,
    SeqvaeError,
    Song,
    bars,
    find_key,
    melody,
    seconds,
    windows,
)

SMALL = Size(embedding=(24, 24, 16, 4), condition=8, encoder=48, decoder=96, head=48, latent=16)
FOUR, SIX = Metre(4, 4), Metre(6, 8)
VELOCITY = 88  # a middle that the codec spells exactly
CODEC = NotesCodec()


def tune(*lines: tuple[tuple[int, float], ...], start: float = 0.0) -> tuple[Note, ...]:
    """Notes of (pitch, beats) one after the other; pitch 0 is a rest."""
    notes, at = [], start
    for pitch, beats in (note for line in lines for note in line):
        if pitch:
            notes.append(Note(at, beats, pitch, VELOCITY))
        at += beats
    return tuple(notes)


JOY = tune(
    tuple((p, 1.0) for p in (66, 66, 67, 69, 69, 67, 66, 64, 62, 62, 64, 66)),
    ((66, 1.5), (64, 0.5), (64, 2.0)),
    tuple((p, 1.0) for p in (66, 66, 67, 69, 69, 67, 66, 64, 62, 62, 64, 66)),
    ((64, 1.5), (62, 0.5), (62, 2.0)),
)  # 8 bars of 4/4
JIG = tune(
    tuple((p, 0.5) for p in (67, 71, 74, 79, 78, 76, 74, 71, 67, 69, 71, 72)),
    ((71, 1.5), (69, 1.0), (67, 0.5), (66, 0.5), (67, 0.5), (69, 0.5), (67, 1.5)),
)  # 4 bars of 6/8
CHORDS = tuple(Note(4.0 * i, 4.0, p) for i in range(8) for p in (50, 54, 57))
BEATS = tuple(Note(float(i), 0.25, 36) for i in range(32))

joy = Song(
    (Part(CHORDS, "guitar", 24), Part(JOY, "Melody", 73), Part(BEATS, "kit", drums=True)),
    tempi=((0.0, 100.0), (16.0, 80.0)),
    key=Key(2, "major"),
    title="Joy",
)
jig = Song((Part(JIG, "fiddle", 40),), ((0.0, SIX),), ((0.0, 160.0),), title="Jig")
rest = 16.0  # beats of silence, two windows, in the middle
gap = Song((Part(JOY[:8] + tune(((62, 4.0), (64, 4.0)), start=8 + rest), "lead"),))
upbeat = Song((Part(tune(((62, 1.0),), ((66, 2.0), (69, 2.0)) * 4), "tune"),), pickup=1.0)
mixed = Song(
    (Part((*JOY[:8], *tune(((67, 1.5), (71, 1.5)) * 3, start=8.0)), "tune"),), ((0.0, FOUR), (8.0, SIX))
)


@pytest.fixture(scope="module")
def learned() -> Saved:
    """A small model that knows the songs above by heart, with a made-up prior."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    codec = CODEC
    found = [w.phrase for song in (joy, jig, gap, upbeat, mixed) for w in windows(song, melody(song)[1], 2)]
    model, (steps, lengths, conditions) = by_heart(codec, SMALL, [phrase for phrase in found if phrase.notes])
    z = model.encode(steps, lengths, conditions).mean
    size = SMALL.latent
    sixes = (conditions == torch.from_numpy(codec.condition(Phrase((), SIX, 2)))).all(1)
    chosen = [0, 1, int(sixes.int().argmax())]  # two windows in 4/4 and one in 6/8
    mixture = Mixture(z[chosen], torch.full((3, size), 0.5), conditions[chosen].float())
    eye = torch.eye(size)
    succession = Succession(0.8 * eye, 0.2 * z.mean(0), 0.7 * eye, z.mean(0), 1.2 * eye)
    return Saved(model, codec, {"metres": {"4/4": 20, "6/8": 5}}, mixture, succession)


def by_heart(codec: BarsCodec, size: Size, phrases: list[Phrase]) -> tuple[Any, list[Tensor]]:
    """A model that has learnt the phrases, and these as a batch."""
    batch = [torch.from_numpy(part) for part in collate([codec.encode(phrase) for phrase in phrases])]
    steps, lengths, conditions = batch
    model = build_model(codec, size)
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        z = model.encode(steps, lengths, conditions).mean
        nll = sequence_nll(model.decode(z, steps, conditions), steps, lengths).mean()
        adam.zero_grad()
        (nll + 0.01 * z.square().sum(1).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    assert nll < 0.5, "the model has not learned its songs, and the tests below mean nothing"
    return model.eval().requires_grad_(False), batch


@pytest.fixture(scope="module")
def pipeline(learned: Saved) -> Melodies:
    return Melodies(learned)


@pytest.fixture(scope="module")
def plain() -> Melodies:
    """An untrained model without a fitted prior."""
    torch.manual_seed(1)
    model = build_model(CODEC, SMALL).eval().requires_grad_(False)
    return Melodies(Saved(model, CODEC))


@pytest.fixture(scope="module")
def morph(pipeline: Melodies) -> Morph:
    return pipeline.interpolate(joy, jig, 5)


def line(song: Song) -> list[tuple[float, float, int, int]]:
    return [(round(n.onset, 6), round(n.duration, 6), n.pitch, n.velocity) for n in melody(song)[1].notes]


# New melodies


@pytest.mark.parametrize("which", ["pipeline", "plain"])
@pytest.mark.parametrize(("count", "metre"), [(4, "4/4"), (3, "6/8"), (1, "3/4"), (5, "7/8")])
def test_samples_keep_their_bars(which: str, count: int, metre: str, request: pytest.FixtureRequest) -> None:
    songs = request.getfixturevalue(which).sample(3, bars=count, metre=metre, tempo=96, program=73)
    assert len(songs) == 3
    for song in songs:
        assert song.metres == ((0.0, Metre.parse(metre)),) and song.tempi == ((0.0, 96),)
        assert len(song.parts) == 1 and song.parts[0].program == 73
        assert song.beats <= count * Metre.parse(metre).beats + 1e-9
        assert len(bars(song)) <= count
        notes = song.parts[0].notes
        assert song.key == find_key(notes) if notes else "silence" in song.notices[-1]


@pytest.mark.parametrize("which", ["pipeline", "plain"])
@pytest.mark.parametrize("prior", ["fitted", "standard"])
def test_a_song_hangs_on_its_seed_and_number_alone(
    which: str, prior: str, request: pytest.FixtureRequest
) -> None:
    sample = request.getfixturevalue(which).sample
    songs = sample(30, bars=4, seed=7, prior=prior)
    assert songs == sample(30, bars=4, seed=7, prior=prior)
    assert len({song.parts[0].notes for song in songs}) > 9
    for n in (1, 2, 3, 9):
        assert sample(n, bars=4, seed=7, prior=prior) == songs[:n]
    others = sample(30, bars=4, seed=8, prior=prior)
    assert sum(a == b for a, b in zip(songs, others, strict=True)) < 10


def test_songs_past_a_batch_are_the_same_too(plain: Melodies) -> None:
    many = plain.sample(600, bars=2, seed=1)
    assert many[:513] == plain.sample(513, bars=2, seed=1)
    assert len({song.parts[0].notes for song in many}) > 200


COMMON = [Phrase((), Metre(4, 4), 2)] * 3


def test_the_fitted_prior_is_drawn_from(pipeline: Melodies, plain: Melodies) -> None:
    mixture, succession = pipeline.saved.mixture, pipeline.saved.succession
    assert mixture is not None and succession is not None
    # Two exemplars are in 4/4 and one in 6/8; in 3/4, where there is none, all serve.
    for metre, served in ((Metre(3, 4), [0, 1, 2]), (SIX, [2]), (FOUR, [0, 1])):
        z = pipeline._prior(4000, [Phrase((), metre, 2)] * 2, 0, "fitted")
        # Standard errors: 0.5 / sqrt(4000), of which 0.1 is twelve, and of which component is drawn.
        spread = mixture.means[served].std(0, unbiased=False) / 4000**0.5
        assert ((z[:, 0].mean(0) - mixture.means[served].mean(0)).abs() < 0.1 + 6 * spread).all()
    weights = succession.preference(z[:, 0], mixture.means[:2]).softmax(1)
    assert 0.1 < weights[:, 0].mean() < 0.9 and weights.max() > 0.7  # what came before matters
    assert ((z[:, 1].mean(0) - (weights @ mixture.means[:2]).mean(0)).abs() < 0.1 + 6 * spread).all()
    alone = Melodies(replace(pipeline.saved, mixture=None))._prior(4000, COMMON[:2], 0, "fitted")
    expected = alone[:, 0] @ succession.matrix.T + succession.bias
    assert ((alone[:, 1] - expected).mean(0).abs() < 6 * 0.7 / 4000**0.5).all()
    for one in (plain._prior(4000, COMMON, 0, "fitted"), pipeline._prior(4000, COMMON, 0, "standard")):
        # N(0, I): chi-square of 16 degrees, standard error 5.7 / sqrt(4000); 0.6 is six, slerp's bias in it.
        norms = one.square().sum(-1).mean(0)
        assert (norms - 16).abs().max() < 0.6
        assert torch.nn.functional.cosine_similarity(one[:, 0], one[:, 1], dim=-1).mean() > 0.6


@pytest.fixture(scope="module")
def harmonic(learned: Saved) -> Melodies:
    """An untrained model that is told chords, with exemplars by metre."""
    torch.manual_seed(2)
    codec = NotesCodec(chords=2)
    model = build_model(codec, SMALL).eval().requires_grad_(False)
    return Melodies(Saved(model, codec, {}, learned.mixture, learned.succession))


@pytest.fixture
def told(harmonic: Melodies, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What the model is told while a test runs, a row a window."""
    rows: list[list[int]] = []

    def watched(z: torch.Tensor, conditions: np.ndarray, *rest: object) -> list[Phrase]:
        rows.extend(conditions.tolist())
        return Melodies.decoded(harmonic, z, conditions, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(harmonic, "decoded", watched)
    return rows


C, G, AM, F, KEY_C = 1, 8, 22, 6, 1  # as the decoder is told them


def test_a_progression_is_told_bar_by_bar_and_over_again(harmonic: Melodies, told: list[list[int]]) -> None:
    songs = harmonic.sample(2, bars=5, chords="C | G Am | F", seed=1)
    rows = [[4, 2, C, C, G, AM, KEY_C], [4, 2, F, F, C, C, KEY_C], [4, 2, G, AM, F, F, KEY_C]]
    assert told == rows * 2
    for song in songs:
        assert [part.name for part in song.parts] == ["", "chords"] and song.key == Key(0, "major")
        heard = song.parts[1].notes
        assert sorted({note.onset for note in heard}) == [0, 4, 6, 8, 12, 16, 18] and song.beats <= 20
    assert songs == harmonic.sample(2, bars=5, chords=parse_chords("C | G Am | F"), seed=1)
    harmonic.sample(1, bars=2, chords="C", key="F", metre="6/8")
    assert told[-1] == [6, 3, G, G, G, G, 6]  # a key that is given counts: C is its G
    (silent,) = harmonic.sample(1, bars=2, chords="N.C.", seed=1)
    assert told[-1] == [4, 2, 0, 0, 0, 0, 0] and not silent.parts[1].notes
    assert not silent.parts[0].notes or silent.key == find_key(silent.parts[0].notes)


def test_without_chords_a_key_is_told_alone(harmonic: Melodies, told: list[list[int]]) -> None:
    (song,) = harmonic.sample(1, bars=2, key="F", seed=3)
    assert told == [[4, 2, 0, 0, 0, 0, 6]] and len(song.parts) == 1
    (free,) = harmonic.sample(1, bars=2, seed=3)
    assert told[1] == [4, 2, 0, 0, 0, 0, 0] and len(free.parts) == 1


def test_a_model_learns_to_sing_over_chords_it_has_not_seen() -> None:
    """Of melodies made of chord tones, in any key; chance is a quarter, the key alone about a half."""
    torch.manual_seed(3)
    rng, codec = np.random.default_rng(0), NotesCodec(chords=2)
    model = build_model(codec, replace(SMALL, condition=16, head=96, latent=2))
    degrees = [(0, "major"), (5, "major"), (7, "major"), (9, "minor")]

    def frame() -> Phrase:
        tonic, chosen = int(rng.integers(12)), [degrees[i] for i in rng.integers(4, size=4)]
        chords = tuple(Key((tonic + root) % 12, mode) for root, mode in chosen)
        return Phrase((), FOUR, 2, chords, Key(tonic, "major"))

    def sung(told: Phrase) -> Phrase:
        tones = [sorted(classes(chord)) for chord in told.chords if chord for _ in range(2)]
        line = (Note(float(i), 1.0, 60 + int(rng.choice(own)), VELOCITY) for i, own in enumerate(tones))
        return replace(told, notes=tuple(line))

    adam = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(160):
        batch = collate([codec.encode(sung(frame())) for _ in range(48)])
        nll, posterior, *_ = model(*(torch.from_numpy(part) for part in batch), torch.randn(48, 2))
        adam.zero_grad()
        (nll + posterior.kl().sum(1)).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    melodies = Melodies(Saved(model.eval().requires_grad_(False), codec))
    told = [frame() for _ in range(64)]
    z = melodies._prior(64, told[:1], 0, "standard")[:, 0]
    made = melodies._decode(z, told, Sampling(), 0)
    shares = [
        chord_share([replace(one, chords=own.chords) for one, own in zip(made, held, strict=True)])
        for held in (told, told[1:] + told[:1])
    ]
    assert shares[0] > 0.8 and shares[1] < 0.5, shares  # 512 notes, of which a share errs by 0.02


def test_chords_are_refused_where_none_are_told(pipeline: Melodies, harmonic: Melodies) -> None:
    with pytest.raises(SeqvaeError, match="this model is told no chords"):
        pipeline.sample(1, chords="C G")
    with pytest.raises(SeqvaeError, match='"H" is not a chord'):
        harmonic.sample(1, chords="C H")
    for nothing in ("", ()):
        with pytest.raises(SeqvaeError, match="no chords|at least one chord"):
            harmonic.sample(1, chords=nothing)


def test_a_song_is_told_its_own_harmony(harmonic: Melodies, told: list[list[int]]) -> None:
    under = tuple(
        Note(8.0 * i, 8.0, p) for i, root in enumerate((50, 55)) for p in (root, root + 4, root + 7)
    )
    song = replace(joy, parts=(Part(under, "chords"), joy.parts[1]))
    own = [[4, 2, *[C] * 4, 3], [4, 2, *[F] * 4, 3], *[[4, 2, 0, 0, 0, 0, 3]] * 2]  # D, G, nothing, in D
    harmonic.reconstruct(song)
    assert told == own
    harmonic.vary(song, n=2)
    assert told[4:] == own * 2
    del told[:]
    harmonic.interpolate(song, jig, 3)
    # Half way and from there on the jig leads, which has no chords; its key is not written.
    assert {tuple(row) for row in told} == {*map(tuple, own), (6, 3, 0, 0, 0, 0, 8)}
    del told[:]
    harmonic.reconstruct(jig)
    assert told == [[6, 3, 0, 0, 0, 0, 8]] * 2


def test_exemplars_are_of_the_metre_whatever_the_chords(harmonic: Melodies) -> None:
    mixture = harmonic.saved.mixture
    assert mixture is not None
    frames = [Phrase((), SIX, 2, parse_chords(text)) for text in ("C G", "F F")]
    z = harmonic._prior(64, frames, 0, "fitted")
    assert ((z - mixture.means[2]) / mixture.scales[2]).abs().max() < 6  # the only one in 6/8
    plain = harmonic._prior(64, [replace(frame, chords=()) for frame in frames], 0, "fitted")
    assert torch.equal(z, plain)  # and what follows depends on the metre alone


@pytest.mark.parametrize("key", ["D", "Bbm", "F# major", "C"])
def test_samples_come_in_the_key(pipeline: Melodies, key: str) -> None:
    wanted = Key.parse(key)
    for song, free in zip(pipeline.sample(6, key=key, seed=3), pipeline.sample(6, seed=3), strict=True):
        assert song.key is not None and song.key.tonic == wanted.tonic
        assert song.key == find_key(song.parts[0].notes)
        assert any("asked for" in notice for notice in song.notices) == (song.key.mode != wanted.mode)
        moves = {b.pitch - a.pitch for a, b in zip(free.parts[0].notes, song.parts[0].notes, strict=True)}
        assert len(moves) == 1 and -6 <= moves.pop() <= 5


def test_a_metre_never_heard_is_noticed(pipeline: Melodies, plain: Melodies) -> None:
    assert "the model was trained on no music in 7/8" in pipeline.sample(1, metre="7/8")[0].notices
    assert not any("trained" in notice for notice in pipeline.sample(1, metre="6/8")[0].notices)
    assert not any("trained" in notice for notice in plain.sample(1, metre="7/8")[0].notices)
    odd = replace(jig, metres=((0.0, Metre(3, 4)),))
    assert "the model was trained on no music in 3/4" in pipeline.reconstruct(odd).notices


def test_greedy_samples_ignore_the_noise_of_symbols(pipeline: Melodies) -> None:
    z = torch.zeros(3, SMALL.latent)
    one, *others = pipeline.decode(z, "6/8")
    assert one.metre == SIX and others == [one, one]


# Reconstructions


@pytest.mark.parametrize("song", [joy, jig, gap, upbeat, mixed], ids=["joy", "jig", "gap", "upbeat", "mixed"])
def test_a_song_known_by_heart_comes_back(pipeline: Melodies, song: Song) -> None:
    found = pipeline.reconstruct(song)
    assert line(found) == line(song)
    assert replace(found, parts=song.parts, notices=()) == song  # metres, pickup, tempo map, key, title
    assert bars(found) == bars(song)


@pytest.mark.parametrize("which", ["pipeline", "plain"])
def test_other_tracks_are_the_same_objects(which: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(which).reconstruct(joy)
    assert found.parts[0] is joy.parts[0] and found.parts[2] is joy.parts[2]
    assert (found.parts[1].name, found.parts[1].program) == ("Melody", 73)


def test_the_track_can_be_chosen(pipeline: Melodies) -> None:
    found = pipeline.reconstruct(joy, "guitar")
    assert found.parts[1] is joy.parts[1] and found.parts[0].notes != CHORDS
    assert "16 of 24 notes lie below the melody and were left out" in found.notices
    assert found == pipeline.reconstruct(joy, 1)
    with pytest.raises(SeqvaeError, match="drums"):
        pipeline.reconstruct(joy, "kit")


def test_silence_stays_silent(plain: Melodies) -> None:
    encoding = plain.encode(gap)
    empty = [i for i, window in enumerate(encoding.windows) if not window.phrase.notes]
    assert empty == [1, 2] and not encoding.means[empty].any() and encoding.means[[0, 3]].any(1).all()
    for song in (plain.reconstruct(gap), *plain.vary(gap, 0.8, 3)):
        assert not any(8 <= note.onset < 8 + rest for note in song.parts[0].notes)


def test_a_pickup_is_kept(pipeline: Melodies) -> None:
    encoding = pipeline.encode(upbeat)
    assert encoding.windows[0].onset == -3.0 and encoding.windows[1].onset == 5.0
    assert pipeline.reconstruct(upbeat).parts[0].notes[0].onset == 0.0


def test_a_last_window_of_one_bar(pipeline: Melodies) -> None:
    """The model reads its bar twice and plays it once; nothing is said to be lost."""
    three = Song((Part(JOY[:12]),))
    encoding = pipeline.encode(three)
    twice = Song((Part(tuple(n._replace(onset=n.onset - by) for by in (8, 4) for n in JOY[8:12])),))
    assert torch.equal(encoding.means[1], pipeline.encode(twice).means[0])
    songs = [pipeline.reconstruct(three), *pipeline.vary(three, 0.9, 4, temperature=1.0, seed=3)]
    assert all(note.onset < 12 for song in songs for note in song.parts[0].notes)
    assert not any("no place" in notice for song in songs for notice in song.notices)
    assert sum(note.onset >= 8 for song in songs for note in song.parts[0].notes) > 4


def test_what_spelling_loses_is_said(pipeline: Melodies) -> None:
    notes = (*JOY[:8], Note(8.01, 1.0, 120), Note(10.0, 40.0, 10))
    notices = " | ".join(pipeline.reconstruct(Song((Part(notes),))).notices)
    for words in ("2 pitches outside 21 to 108", "1 of 10 onsets were moved", "1 notes were shortened to 16"):
        assert words in notices
    assert all(21 <= n.pitch <= 108 for n in pipeline.reconstruct(Song((Part(notes),))).parts[0].notes)


def test_files_and_pretty_midi_are_songs(pipeline: Melodies, tmp_path: Path) -> None:
    files.write(joy, tmp_path / "joy.mid")
    one = pipeline.reconstruct(tmp_path / "joy.mid")
    two = pipeline.reconstruct(str(tmp_path / "joy.mid"))
    three = pipeline.reconstruct(files.to_pretty_midi(joy))
    assert line(one) == line(two) == line(three) == line(joy)


# Variations


@pytest.mark.parametrize("which", ["pipeline", "plain"])
@pytest.mark.parametrize("song", [joy, jig, gap, upbeat, mixed], ids=["joy", "jig", "gap", "upbeat", "mixed"])
def test_no_variation_is_the_reconstruction(which: str, song: Song, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    assert model.vary(song, 0.0, 3, seed=5) == [model.reconstruct(song)] * 3


def test_full_variation_is_a_new_melody(pipeline: Melodies) -> None:
    other = Song((Part(tune(tuple((60 + i % 5, 1.0) for i in range(32)), start=0.0)),))
    full = pipeline.vary(joy, 1.0, 4, seed=2)
    assert [line(song) for song in full] == [line(song) for song in pipeline.vary(other, 1.0, 4, seed=2)]
    assert all(line(song) != line(joy) for song in full)


def test_variations_hang_on_their_seed_and_number_alone(pipeline: Melodies) -> None:
    found = pipeline.vary(joy, 0.6, 9, seed=4, temperature=0.8)
    assert found[:2] == pipeline.vary(joy, 0.6, 2, seed=4, temperature=0.8)
    assert found != pipeline.vary(joy, 0.6, 9, seed=5, temperature=0.8)
    assert all(song.parts[0] is joy.parts[0] for song in found)


def test_larger_amounts_go_further(pipeline: Melodies) -> None:
    def kept(amount: float) -> float:
        songs = pipeline.vary(joy, amount, 16, seed=1)
        return float(np.mean([len(set(line(song)) & set(line(joy))) for song in songs]))

    assert kept(0.0) == len(JOY) >= kept(0.3) > kept(0.9)


# From one song to another


@pytest.mark.parametrize("which", ["pipeline", "plain"])
@pytest.mark.parametrize("fit", ["loop", "stretch"])
@pytest.mark.parametrize(("a", "b"), [(joy, jig), (jig, joy), (upbeat, gap), (mixed, upbeat)])
def test_the_ends_are_the_reconstructions(
    which: str, fit: str, a: Song, b: Song, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    found = model.interpolate(a, b, 4, fit=fit, temperature=0.5)
    assert len(found.songs) == 4
    assert found.songs[0] == model.reconstruct(a) and found.songs[-1] == model.reconstruct(b)
    assert found == model.interpolate(a, b, 4, fit=fit, temperature=0.5)
    assert model.interpolate(a, b, 2).songs == [found.songs[0], found.songs[-1]]


@pytest.mark.parametrize(("a", "b"), [(joy, jig), (jig, joy)])
def test_six_eight_meets_four_four_bar_by_bar(pipeline: Melodies, a: Song, b: Song) -> None:
    found = pipeline.interpolate(a, b, 5)
    one, other = a.metres[0][1], b.metres[0][1]
    assert [song.metres for song in found.songs[1:-1]] == [((0.0, metre),) for metre in (one, other, other)]
    assert all(song.beats <= 8 * song.metres[0][1].beats + 16 for song in found.songs)
    # Four windows of two bars, of which the first two stand before the middle.
    assert found.journey.metres == ((0.0, one), (4 * one.beats, other))
    assert any(f"{one} meets {other} bar by bar" in notice for notice in found.notices)
    assert any("looped from 2 windows to the other's 4" in notice for notice in found.notices)


def test_one_metre_and_length_need_no_notice(pipeline: Melodies) -> None:
    assert pipeline.interpolate(jig, replace(jig, title="Same"), 3).notices == ()


def test_tempo_and_programme_move(morph: Morph) -> None:
    mean = 60 * joy.beats / seconds(joy, joy.beats)
    assert 80 < mean < 100
    for t, song in zip((0.25, 0.5, 0.75), morph.songs[1:-1], strict=True):
        assert song.tempi[0][1] == pytest.approx(math.exp((1 - t) * math.log(mean) + t * math.log(160)))
    assert [song.parts[0].program for song in morph.songs[1:-1]] == [73, 40, 40]
    assert [part.program for part in morph.journey.parts] == [73, 40]
    tempi = [tempo for _, tempo in morph.journey.tempi]
    assert tempi == sorted(tempi) and tempi[0] == mean and tempi[-1] == pytest.approx(160)
    assert any("other tracks (2 and 0)" in notice for notice in morph.notices)
    assert any("mean tempo" in notice for notice in morph.notices)


def test_the_journey_begins_as_one_and_ends_as_the_other(pipeline: Melodies, morph: Morph) -> None:
    notes = [note for part in morph.journey.parts for note in part.notes]
    assert notes == sorted(notes)
    assert [n for n in notes if n.onset < 8] == [n for n in JOY if n.onset < 8]
    last = 8 + 8 + 6  # beats: two windows of 4/4, one of 6/8
    expected = [n for n in JIG if n.onset >= 6]
    assert [n for n in notes if n.onset >= last] == [n._replace(onset=n.onset - 6 + last) for n in expected]


@pytest.mark.parametrize(("a", "b"), [(joy, jig), (jig, joy), (gap, upbeat), (joy, joy), (jig, jig)])
def test_the_last_note_is_there(pipeline: Melodies, a: Song, b: Song) -> None:
    """MusicVAE lost it: its note sequences ended where the last note began."""
    found = pipeline.interpolate(a, b, 5, fit="stretch")
    for song, end in ((found.songs[0], a), (found.songs[-1], b), (found.journey, b)):
        notes = sorted(note for part in song.parts for note in part.notes if not part.drums)
        last, expected = notes[-1], melody(end)[1].notes[-1]
        if song is not found.journey:
            last = melody(song)[1].notes[-1]
            assert last == expected
        assert (last.pitch, last.duration) == (expected.pitch, expected.duration)


def test_a_journey_between_single_windows_has_both(pipeline: Melodies) -> None:
    one = Song((Part(JOY[:8], program=5),))
    two = Song((Part(tune(((67, 0.5), (71, 0.5), (74, 0.5), (79, 0.5)) * 3)),), ((0.0, SIX),))
    journey = pipeline.interpolate(one, two, 3).journey
    assert len(bars(journey)) == 4 and journey.metres == ((0.0, FOUR), (8.0, SIX))
    assert line(Song(journey.parts[:1])) == line(one)


def test_how_the_shorter_song_is_made_to_fit(pipeline: Melodies) -> None:
    ends = pipeline.encode(jig), pipeline.encode(joy)  # 2 and 4 windows
    for length, fit, expected in (
        (4, "loop", [0, 1, 0, 1]),
        (4, "stretch", [0, 0, 1, 1]),
        (5, "stretch", [0, 0, 0, 1, 1]),
    ):
        found = cells(ends, length, fit, [0.5] * length)
        assert [cell.places[0] for cell in found] == expected
    assert [cell.places[1] for cell in cells(ends, 4, "stretch", [0.5] * 4)] == [0, 1, 2, 3]


def test_silence_on_the_way(pipeline: Melodies) -> None:
    """Windows 1 and 2 of the one are silent, 2 and 3 of the other."""
    sparse = Song((Part((*JOY[:15], Note(32.0, 4.0, 62, VELOCITY))),))
    found = pipeline.interpolate(gap, sparse, 3)
    for song in (found.songs[1], found.journey):
        assert not any(16 <= note.onset < 24 for note in song.parts[0].notes)  # both
    second = [n for n in found.songs[1].parts[0].notes if 8 <= n.onset < 16]
    expected = [n for n in pipeline.reconstruct(sparse).parts[0].notes if 8 <= n.onset < 16]
    assert second == expected != []  # one: the other's z


def test_a_pickup_on_the_way(pipeline: Melodies) -> None:
    found = pipeline.interpolate(upbeat, upbeat, 3)
    assert [song.pickup for song in (*found.songs, found.journey)] == [1.0] * 4
    assert line(found.songs[1]) == line(found.journey) == line(upbeat)


# Bad arguments


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.sample(0),
        lambda p: p.sample(1, bars=0),
        lambda p: p.sample(1, metre="4/5"),
        lambda p: p.sample(1, metre="12/4"),
        lambda p: p.sample(1, key="H"),
        lambda p: p.sample(1, tempo=0),
        lambda p: p.sample(1, tempo=math.nan),
        lambda p: p.sample(1, program=128),
        lambda p: p.sample(1, temperature=-1),
        lambda p: p.sample(1, temperature=math.nan),
        lambda p: p.sample(1, temperature=1e-30),
        lambda p: p.sample(1, top_k=-1),
        lambda p: p.sample(1, top_p=0),
        lambda p: p.sample(1, seed=-1),
        lambda p: p.sample(1, prior="flat"),
        lambda p: p.vary(joy, 1.1),
        lambda p: p.vary(joy, math.nan),
        lambda p: p.vary(joy, n=0),
        lambda p: p.interpolate(joy, jig, 1),
        lambda p: p.interpolate(joy, jig, fit="cut"),
        lambda p: p.reconstruct(Song(())),
        lambda p: p.reconstruct(Song(joy.parts[2:])),
        lambda p: p.reconstruct(replace(joy, metres=((0.0, Metre(12, 4)),))),
        lambda p: p.reconstruct("no such file.mid"),
        lambda p: p.reconstruct(joy, "tuba"),
        lambda p: Melodies(p.saved, "abacus"),
    ],
)
def test_a_wrong_argument_is_one_sentence(pipeline: Melodies, call) -> None:
    with pytest.raises(SeqvaeError) as fault:
        call(pipeline)
    assert "\n" not in str(fault.value) and 10 < len(str(fault.value)) < 300


def test_models_are_found(learned: Saved, pipeline: Melodies, tmp_path: Path) -> None:
    save_model(tmp_path / "run" / "best", learned)
    for folder in (tmp_path / "run", tmp_path / "run" / "best"):
        assert find_model(folder) == tmp_path / "run" / "best"
        assert Pipeline.from_pretrained(str(folder)).sample(2) == pipeline.sample(2)
    for name in ("nothing like it", tmp_path, "a\0b", "x" * 5000):
        with pytest.raises(SeqvaeError, match="embedded"):
            Pipeline.from_pretrained(name)


# ------------------------------------------------------------------------------------ places


def test_places_are_songs(pipeline: Melodies) -> None:
    """z of windows is the encoding of what they decode to, and can be varied and mixed like a song."""
    z = pipeline.encode(joy).means
    placed = pipeline.placed(z, "4/4")
    assert torch.equal(placed.means, z) and [w.bar for w in placed.windows] == list(range(0, 2 * len(z), 2))
    assert line(placed.song) == line(pipeline.reconstruct(placed)) and pipeline.encode(placed) is placed
    with pytest.raises(SeqvaeError, match="dimensions, not 3"):
        pipeline.placed(torch.zeros(2, 3))


def test_a_shift_goes_there_window_by_window(pipeline: Melodies) -> None:
    encoding = pipeline.encode(joy)
    goal = encoding.means[-1]  # both kinds' means on the line through here, far away
    attribute = nowhere(len(goal))._replace(means=torch.stack((-goal, goal)), axis=goal / (2 * goal @ goal))
    same, there = pipeline.shift(joy, [[(attribute, 0.0)], [(attribute, 1.0), (attribute, 0.0)]])
    assert line(same) == line(pipeline.reconstruct(joy))
    assert line(there) != line(same) and [w.onset for w in pipeline.encode(there).windows][:1] == [0.0]
    with pytest.raises(SeqvaeError, match="another model"):
        pipeline.shift(joy, [[(nowhere(3), 1.0)]])


def test_a_step_moves_every_window_from_where_it_is(pipeline: Melodies) -> None:
    """Of a kind by half the way between the means; of a measure by what is heard."""
    encoding = pipeline.encode(joy)
    told = np.stack([CODEC.condition(window.phrase) for window in encoding.windows])
    kinds = nowhere(SMALL.latent)._replace(means=torch.stack((-encoding.means[0], encoding.means[0])))
    z = pipeline.shifted(encoding.means, told, [[Place(kinds, by, True)] for by in (0.0, -1.5)])
    torch.testing.assert_close(z, torch.stack((encoding.means, encoding.means - 1.5 * encoding.means[0])))
    measure = pipeline.measured(64)["syncopation"]
    moved = pipeline.shift(joy, [[Place(measure, by, True)] for by in (-1.0, 0.0, 1.0)])
    heard = [
        [MEASURES["melody"]["syncopation"](window.phrase) for window in windows(song, part, 2)]
        for song in moved
        for part in [song.parts[encoding.tracks[0][0]]]
    ]
    assert all(few <= same <= many for few, same, many in zip(*heard, strict=True))
    assert sum(heard[0]) < sum(heard[1]) < sum(heard[2]) and line(moved[1]) == line(pipeline.reconstruct(joy))
    foreign = measure._replace(measure="unheard")  # of a later version: the way alone
    told = told[:1]
    there = pipeline.shifted(encoding.means[:1], told, [[Place(foreign, 2.0, True)]])[0]
    torch.testing.assert_close(there, encoding.means[:1] + 2 * measure.way)
    with pytest.raises(SeqvaeError, match="finite"):
        pipeline.shift(joy, [[Place(measure, math.inf, True)]])


def test_a_square_of_songs(pipeline: Melodies, plain: Melodies) -> None:
    """Its corners have their own metres, tempi and notes; a place between has a metre and a tempo between."""
    others = plain.sample(2, bars=6, metre="3/4", tempo=240)
    corners = [joy, *plain.sample(1, bars=2, metre="6/8", tempo=60), *others]
    first, second, middle = pipeline.blend(corners, [(0.0, 0.0), (1.0, 0.0), (0.75, 0.0)])
    reconstructed = pipeline.reconstruct(joy)
    notes = reconstructed.parts[pipeline.encode(joy).tracks[0][0]].notes
    assert [n[:3] for n in first.parts[0].notes][: len(notes)] == [n[:3] for n in notes]
    assert [str(song.metres[0][1]) for song in (first, second, middle)] == ["4/4", "6/8", "6/8"]
    tempo = pace(joy)
    assert middle.tempi[0][1] == pytest.approx(tempo**0.25 * 60**0.75) and second.tempi[0][1] == 60
    for bad in ([(1.5, 0.0)], [(0.0, -0.1)]):
        with pytest.raises(SeqvaeError, match="lies in 0 to 1"):
            pipeline.blend(corners, bad)
    with pytest.raises(SeqvaeError, match="four corners, not 3"):
        pipeline.blend(corners[:3], [(0.0, 0.0)])


def test_measures_are_learnt_of_what_the_atlas_decodes_to(
    pipeline: Melodies, plain: Melodies, harmonic: Melodies
) -> None:
    for model in (pipeline, plain, harmonic):
        (z, spread), conditions = model.atlas(64)
        assert len(z) == len(spread) == len(conditions) <= 64 and torch.equal(model.atlas(64)[0].mean, z)
        found = model.measured(64)
        assert {*found} <= {*MEASURES["melody"]} and found
        again = model.measured(64)
        assert all(torch.equal(found[name].axis, again[name].axis) for name in found)
        assert {*model.measured(64, known=["mode"])} == {*found} - {"mode"}
    assert pipeline.measured(64, known=MEASURES["melody"]) == {}


# Ensembles

CHORALE, TRIO = (files.read(DATA / f"{name}.mid") for name in ("harbour_evening", "back_porch_trio"))
OWN = {"chorale": (CHORALE, [0, 1, 2, 3]), "trio": (TRIO, [2, 1, 3])}  # where each voice is played


@pytest.fixture(scope="module")
def bands() -> dict[str, Melodies]:
    """Small models of both, each of which knows its song by heart."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found, size = {}, replace(SMALL, embedding=(24, 8, 24, 16, 4))
    for name, (song, _) in OWN.items():
        codec = VoicesCodec(ensemble=name)
        cut = windows(song, codec.voices(song).part, 2, ensemble=name)
        found[name] = Melodies(Saved(by_heart(codec, size, [window.phrase for window in cut])[0], codec))
    return found


@pytest.mark.parametrize("name", OWN)
def test_an_ensemble_plays_its_parts(name: str, bands: dict[str, Melodies]) -> None:
    for song in bands[name].sample(4, bars=3, metre="3/4", tempo=90, seed=1):
        assert [replace(part, notes=()) for part in song.parts] == list(ENSEMBLES[name])
        assert song.beats <= 9 and song.metres == ((0.0, Metre(3, 4)),)
        for part in song.parts:
            lines = {n.pitch for n in part.notes} if part.drums else {0}
            for line in lines:
                own = [n for n in part.notes if not part.drums or n.pitch == line]
                assert all(a.onset + a.duration <= b.onset + 1e-9 for a, b in zip(own, own[1:], strict=False))


def test_a_key_moves_all_voices_but_drums(bands: dict[str, Melodies]) -> None:
    free, keyed = (bands["trio"].sample(6, seed=2, key=key) for key in (None, "E"))
    steps = set()
    for one, other in zip(free, keyed, strict=True):
        assert other.key is not None and other.key.tonic == 4
        moves = [
            {b.pitch - a.pitch for a, b in zip(was.notes, now.notes, strict=True)}
            for was, now in zip(one.parts, other.parts, strict=True)
        ]
        assert moves[2] <= {0} and len({move % 12 for move in moves[0] | moves[1]}) == 1
        steps |= moves[0]
    assert steps != {0}


def test_an_ensemble_has_its_own_programmes(bands: dict[str, Melodies]) -> None:
    with pytest.raises(SeqvaeError, match="the parts of a trio have their own programmes"):
        bands["trio"].sample(1, program=0)


@pytest.mark.parametrize("name", OWN)
def test_a_reconstruction_keeps_what_is_not_a_voice(name: str, bands: dict[str, Melodies]) -> None:
    song, places = OWN[name]
    again = bands[name].reconstruct(song)
    assert [replace(p, notes=()) for p in again.parts] == [replace(p, notes=()) for p in song.parts]
    assert (again.metres, again.tempi, again.pickup) == (song.metres, song.tempi, song.pickup)
    for i, (was, now) in enumerate(zip(song.parts, again.parts, strict=True)):
        heard = [n for p in song.parts if p.drums for n in p.notes] if was.drums else was.notes
        assert {note.voice for note in now.notes} <= {0}
        if i in places:
            assert [n[::2] for n in now.notes] == [pytest.approx(n[::2]) for n in sorted(heard)]
        else:  # the guitar stays; all drums are in the first part of drums
            assert now.notes == (() if was.drums else was.notes)
    assert bands[name].vary(song, 0.0, 1) == [again]


@pytest.mark.parametrize("name", OWN)
def test_an_ensemble_travels_part_by_part(name: str, bands: dict[str, Melodies]) -> None:
    song, places = OWN[name]
    other = replace(song, parts=tuple(replace(p, program=(p.program + 1) % 128) for p in song.parts))
    morph, ends = bands[name].interpolate(song, other, 3), [song, other]
    assert morph.songs[::2] == [bands[name].reconstruct(end) for end in ends]
    for between in (morph.songs[1], morph.journey):
        names = [(part.name, part.drums) for part in between.parts]
        assert list(dict.fromkeys(names)) == [(part.name, part.drums) for part in ENSEMBLES[name]]
    programs = [[end.parts[i].program for i in places if not end.parts[i].drums] for end in ends]
    half, way = ([p.program for p in made.parts if not p.drums] for made in (morph.songs[1], morph.journey))
    assert half == programs[1]  # of the second song, which leads half way
    assert way == [program for pair in zip(*programs, strict=True) for program in pair]


def test_a_song_without_the_voices_is_refused(bands: dict[str, Melodies]) -> None:
    with pytest.raises(
        SeqvaeError, match="a trio is melody, bass and drums, and the song has only one pitch"
    ):
        bands["trio"].reconstruct(Song((Part(JOY), Part(BEATS, drums=True))))
    with pytest.raises(SeqvaeError, match="a chorale has four voices"):
        bands["chorale"].encode(joy)


def test_quarters_are_reconstructed_as_quarters() -> None:
    torch.manual_seed(0)
    codec = VoicesCodec(quarters=1)
    model = build_model(codec, replace(SMALL, embedding=(24, 8, 24, 16, 4))).eval().requires_grad_(False)
    again = Melodies(Saved(model, codec)).reconstruct(CHORALE)
    assert {note.duration for part in again.parts for note in part.notes} <= {1.0}
    assert all(note.onset % 1 == 0 for part in again.parts for note in part.notes)
