"""Ensembles: which parts are the voices, who is refused and why, and what sounds at every quarter."""

from dataclasses import replace
from pathlib import Path

import pytest

from seqvae import files
from seqvae.codecs import VoicesCodec
from seqvae.ensembles import every_quarter, order, sampled, voices
from seqvae.song import ENSEMBLES, Metre, Note, Part, SeqvaeError, Song, assemble, melody, windows

DATA = Path(__file__).parent.parent / "data"
chorale = files.read(DATA / "harbour_evening.mid")
trio = files.read(DATA / "back_porch_trio.mid")


def unnamed(song: Song, *places: int) -> Song:
    """The song's parts at these places, without their names."""
    return replace(song, parts=tuple(replace(song.parts[i], name="") for i in places))


def test_a_chorale_is_found_by_its_names_else_by_height():
    assert voices(chorale, "chorale").tracks == ((0,), (1,), (2,), (3,))
    assert voices(unnamed(chorale, 2, 0, 3, 1), "chorale").tracks == ((1,), (3,), (0,), (2,))
    doubled = replace(chorale, parts=(Part(chorale.parts[0].notes, "Oboe"), *reversed(chorale.parts)))
    assert voices(doubled, "chorale").tracks == ((4,), (3,), (2,), (1,))
    named = ("Bassoon", "Sopran", "Altstimme", "Tenore", "BASSO")
    abroad = [Part(JIG, name) for name in named]
    assert voices(Song(tuple(abroad)), "chorale").tracks == ((1,), (2,), (3,), (4,))


JIG = tuple(Note(i / 2, 0.5, 60 + i) for i in range(8))


@pytest.mark.parametrize(
    ("song", "said"),
    [
        (
            trio,
            "a chorale has four voices, and the song has 3 pitched parts, none named soprano, alto, tenor",
        ),
        (Song((Part(JIG, "Alto"),)), "the song has 1 pitched part, not one each named soprano"),
        (Song((*chorale.parts, chorale.parts[0])), "5 pitched parts, not one each named"),
    ],
)
def test_what_is_no_chorale_is_refused(song: Song, said: str):
    with pytest.raises(SeqvaeError, match=said):
        voices(song, "chorale")


def test_a_chorale_has_no_track():
    with pytest.raises(SeqvaeError, match="found by themselves"):
        voices(chorale, "chorale", 1)


def test_a_trio_is_melody_bass_and_all_drums():
    assert voices(trio, "trio").tracks == ((2,), (1,), (3, 4))
    assert voices(trio, "trio", "Guitar").tracks == ((0,), (1,), (3, 4))
    named = replace(trio, parts=tuple(replace(p, program=0) for p in trio.parts))
    low = voices(named, "trio")  # without a programme or a name the lowest other part
    assert low.tracks == ((2,), (1,), (3, 4))
    bass = replace(
        named, parts=(*named.parts[:1], replace(named.parts[1], name="Basso", program=0), *named.parts[2:])
    )
    assert voices(bass, "trio").tracks == ((2,), (1,), (3, 4))


def test_a_bass_by_its_name_goes_before_a_lower_part():
    tuba = Part(tuple(n._replace(pitch=n.pitch - 12) for n in trio.parts[1].notes), "Tuba", 58)
    song = replace(trio, parts=(*trio.parts, tuba))
    assert voices(song, "trio").tracks[1] == (1,)
    song = replace(song, parts=tuple(replace(p, program=0) for p in song.parts))
    assert voices(song, "trio").tracks[1] == (5,)


@pytest.mark.parametrize(
    ("kept", "said"),
    [((0, 1, 2), "has no drums"), ((2, 3), "has only one pitched part"), ((3, 4), "has only drums")],
)
def test_what_is_no_trio_is_refused(kept: tuple[int, ...], said: str):
    with pytest.raises(
        SeqvaeError, match=f"a trio is melody, bass and drums, and the song {said}; the tracks are"
    ):
        voices(replace(trio, parts=tuple(trio.parts[i] for i in kept)), "trio")


def test_a_melody_is_a_voice_alone():
    found = voices(trio, "")
    assert found.tracks == ((2,),) and found.part == melody(trio)[1]


def test_the_notes_of_all_voices_stand_in_order():
    for song, ensemble in ((chorale, "chorale"), (trio, "trio")):
        found = voices(song, ensemble)
        assert list(found.part.notes) == sorted(found.part.notes, key=order)
        for voice, own in enumerate(found.tracks):
            notes = sorted(note for i in own for note in song.parts[i].notes)
            assert sorted(n._replace(voice=0) for n in found.part.notes if n.voice == voice) == notes


@pytest.mark.parametrize(("song", "ensemble"), [(chorale, "chorale"), (trio, "trio")])
def test_windows_assembled_are_the_song(song: Song, ensemble: str):
    """Cut and put together, every part has its notes, name and kind again."""
    codec, found = VoicesCodec(ensemble=ensemble), voices(song, ensemble)
    cut = windows(song, found.part, 2, ensemble=ensemble)
    made = assemble([codec.snap(w.phrase) for w in cut], onsets=[w.onset for w in cut])
    assert [(p.name, p.drums) for p in made.parts] == [(p.name, p.drums) for p in ENSEMBLES[ensemble]]
    assert made.pickup == song.pickup and not made.notices
    for part, own in zip(made.parts, found.tracks, strict=True):
        notes = sorted((n.onset, n.pitch) for i in own for n in song.parts[i].notes)
        assert [(round(n.onset, 6), n.pitch) for n in part.notes] == notes


def test_quarters_begin_with_every_bar():
    song = Song((Part((Note(0, 12, 60),)),), ((0.0, Metre(3, 8)), (3.0, Metre(4, 4))), pickup=0.5)
    assert every_quarter(song)[:9] == [-1.0, 0.0, 0.5, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_what_sounds_at_a_time_is_the_latest_that_has_begun():
    notes = (
        Note(0, 4, 60),
        Note(1.02, 0.5, 62),
        Note(3.99, 1, 64),
        Note(0, 1, 40, 80, 1),
        Note(2.5, 1, 41, 80, 1),
    )
    assert sampled(notes, [0.0, 1.0, 2.0, 3.0, 4.0], 4.5) == (
        Note(0, 1, 60), Note(0, 1, 40, 80, 1), Note(1, 1, 62), Note(3, 1, 41, 80, 1), Note(4, 0.5, 64),
    )  # fmt: skip
