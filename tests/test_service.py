"""The service over real HTTP: the answers of Python, streams, refusals, and no 5xx but 503 whatever comes."""

import base64
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
import torch
from conftest import served
from hypothesis import HealthCheck, Phase, settings
from PIL import Image

from seqvae import files
from seqvae.client import Client, Refused, Step
from seqvae.decoding import Beam, Sampling
from seqvae.pipeline import Pipeline
from seqvae.service import schemas
from seqvae.service.app import Settings, create_app
from seqvae.service.schemas import Generate, How, Made, SongBody
from seqvae.song import Song, assemble

DATA = Path(__file__).parent.parent / "data"
JSON = {"Content-Type": "application/json"}
TUNES = [DATA / "heron_weather.mid", DATA / "crab_apple_lane.mid"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(Settings(data=tmp_path_factory.mktemp("data"), rate=0, log=False)) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def songs(made: Made) -> list[Song]:
    return [thing.song.song() for thing in made.things if thing.song is not None]


def same(found: list[Song], expected: list[Song]) -> bool:
    """But for notices, which a song's body does not bring back."""
    return [SongBody.of(song).model_copy(update={"notices": []}) for song in found] == [
        SongBody.of(song).model_copy(update={"notices": []}) for song in expected
    ]


# ------------------------------------------------------------------------------------ answers


def test_melodies_are_those_of_python(client: Client) -> None:
    model = Pipeline.from_pretrained("melody")
    ask = Generate(n=3, bars=4, metre="6/8", key="D", tempo=90, program=73, temperature=0.8, seed=4)
    expected = model.sample(3, bars=4, metre="6/8", key="D", tempo=90, program=73, temperature=0.8, seed=4)
    assert same(songs(client.generate("melody", ask)), expected)
    a, b = (files.read(path) for path in TUNES)
    assert same(songs(client.reconstruct("melody", a)), [model.reconstruct(a)])
    assert same(songs(client.vary("melody", a, 3, 0.4, How(seed=2))), model.vary(a, 0.4, 3, seed=2))
    morph, found = model.interpolate(a, b, 5, fit="stretch"), client.interpolate("melody", a, b, 5, "stretch")
    assert same(songs(found), morph.songs) and found.notices == list(morph.notices)
    assert found.journey is not None and found.journey.song is not None
    assert same([found.journey.song.song()], [morph.journey])
    z = client.encode("melody", TUNES[0])  # a file, read by the server
    assert torch.equal(torch.tensor(z.z), model.encode(a).means) and not any(z.silent)
    assert same(
        songs(client.decode("melody", z.z, "3/4")), [assemble(model.decode(torch.tensor(z.z), "3/4"))]
    )


def test_corners_of_a_square_are_their_own_and_places_between_are_not(client: Client) -> None:
    model = Pipeline.from_pretrained("melody")
    corners = [*(files.read(path) for path in TUNES), *model.sample(2, bars=2, metre="3/4", seed=1)]
    places = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.25)]
    found = songs(client.square("melody", tuple(corners), places))
    for corner, song in zip(corners, found[:4], strict=True):
        own = model.reconstruct(corner)
        length = own.beats
        line = [n[:3] for n in model.reconstruct(corner).parts[model.encode(corner).tracks[0][0]].notes]
        assert [n[:3] for n in song.parts[0].notes if n.onset < length - 0.1][: len(line)] == line
        assert song.metres[0][1] == corner.metres[0][1]
    assert found[4].parts[0].notes not in [song.parts[0].notes for song in found[:4]]


def test_texts_are_those_of_python(client: Client) -> None:
    model = Pipeline.from_pretrained("sentences")
    a, b = "he opened the door", "the children laughed at the clown"
    assert texts(client.generate("sentences", Generate(n=4, seed=3))) == model.sample(4, seed=3)
    assert texts(client.interpolate("sentences", a, b, 6)) == model.interpolate(a, b, 6)
    beam = How(beam=4, length_penalty=0.2)
    assert texts(client.reconstruct("sentences", a, beam)) == model.reconstruct([a], Beam(4, 0.2))
    warm = How(temperature=0.9, top_p=0.8, seed=7)
    assert texts(client.vary("sentences", a, 5, 0.5, warm)) == model.vary(
        a, 0.5, 5, Sampling(0.9, 0, 0.8), seed=7
    )
    found = texts(client.square("sentences", (a, b, a, b), [(0.0, 0.3), (1.0, 0.6), (0.5, 0.5)]))
    assert found[:2] == model.reconstruct([a, b]) and found[2] == model.interpolate(a, b, 3)[1]
    z = client.encode("sentences", b).z
    assert texts(client.decode("sentences", z)) == model.reconstruct([b])
    longest = client.reconstruct("sentences", " ".join(["word"] * 60))
    assert "was cut" in longest.notices[0]


def texts(made: Made) -> list[str | None]:
    return [thing.text for thing in made.things]


def test_pictures_are_those_of_python(client: Client, tmp_path: Path) -> None:
    model = Pipeline.from_pretrained("avatars")
    made = client.generate("avatars", Generate(n=2, seed=5))
    assert all(map(np.array_equal, map(picture, made.things), model.sample(2, seed=5)))
    file = tmp_path / "face.png"
    file.write_bytes(base64.b64decode(made.things[0].image or ""))
    again = client.reconstruct("avatars", file)
    assert np.array_equal(picture(again.things[0]), model.reconstruct([model.read(file)])[0])
    assert np.array_equal(picture(client.read(file, "avatars")), model.read(file))


def picture(thing: schemas.MadeThing) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(thing.image or ""))))


def test_alone_and_in_a_busy_batch_equal_bytes(url: str) -> None:
    """24 requests of several kinds and temperatures at once, each asked again with nobody else there."""
    asked = [
        ("melody/generate", {"n": 1 + i % 8, "bars": 2 + i % 3, "seed": i, "temperature": (0, 0.7, 1)[i % 3]})
        for i in range(16)
    ]
    asked += [("sentences/generate", {"n": 3, "seed": i, "top_k": 40 * (i % 2)}) for i in range(8)]

    def ask(what: tuple[str, dict[str, Any]]) -> bytes:
        answer = httpx.post(f"{url}/v1/models/{what[0]}", json=what[1], timeout=60)
        assert answer.status_code == 200
        return answer.content

    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(ask, asked))
    assert together == [ask(one) for one in asked]
    assert len(set(together)) == len(asked)


def test_steps_are_streamed_and_make_the_answer(client: Client) -> None:
    *steps, made = client.stream("generate", "sentences", Generate(n=2, seed=3))
    assert isinstance(made, Made) and texts(made) == texts(
        client.generate("sentences", Generate(n=2, seed=3))
    )
    for row in (0, 1):
        own = [step for step in steps if isinstance(step, Step) and step.row == row]
        assert [step.step for step in own] == list(range(len(own))) and own[-1].text == made.things[row].text
    assert len(steps) > 4
    *notes, song = client.stream("generate", "melody", Generate(bars=2, seed=3))
    assert isinstance(song, Made) and isinstance(notes[0], Step) and len(notes[0].symbols) == 4
    with pytest.raises(Refused, match="mean something to models of melodies alone"):
        list(client.stream("generate", "sentences", Generate(bars=2)))
    with pytest.raises(Refused, match="this model is told no chords"):
        client.generate("melody", Generate(chords="C | G Am"))


# ------------------------------------------------------------------------------------ attributes, map


def test_attributes_are_offered_learnt_and_kept(client: Client, url: str) -> None:
    names = [one.name for one in client.attributes("melody")]
    assert {"note-density", "pitch", "syncopation"} <= {*names}
    tune = files.read(TUNES[0])
    low, same_, high = songs(client.shift("melody", tune, [{"pitch": -3}, {"pitch": 0}, {"pitch": 3}]))
    means = [np.mean([note.pitch for note in song.parts[0].notes]) for song in (low, same_, high)]
    assert means[0] <= means[1] + 0.5 and means[2] > means[1] + 1
    assert same([same_], songs(client.reconstruct("melody", tune)))
    short = ["he ran", "she left", "we sat down", "they came", "I slept"]
    long = [f"{one} in the old house by the river last night" for one in short]
    learnt = client.learn_attribute("sentences", "lengthened", short, long)
    assert not learnt.own and "lengthened" in [one.name for one in client.attributes("sentences")]
    few, many = texts(client.shift("sentences", short[0], [{"lengthened": -1}, {"lengthened": 1}]))
    assert len(str(many).split()) > len(str(few).split())
    with pytest.raises(Refused, match="no attribute 'blue'; it has"):
        client.shift("sentences", "he ran", [{"blue": 1}])
    with pytest.raises(Refused, match="of the model's own"):
        client.learn_attribute("melody", "pitch", [tune] * 2, [tune] * 2)


def test_the_map_shows_where_things_are(client: Client) -> None:
    found = client.latent_map("melody")
    assert len(found.points) == 1024 and 0 < found.explained < 1
    at = found.points[17]
    there = client.on_map("melody", places=[at])
    assert there.points == [17] and there.things[0].song is not None
    where = client.on_map("melody", things=[files.read(TUNES[0])])
    windows = client.encode("melody", TUNES[0]).z
    assert len(where.places[0]) == len(windows) and where.things == []
    assert client.latent_map("melody") == found
    assert texts(Made(things=client.on_map("sentences", places=[(0.0, 0.0)]).things))[0]


@pytest.mark.parametrize(
    "form, magic", [("mid", b"MThd"), ("musicxml", b"<?xml"), ("wav", b"RIFF"), ("png", b"\x89PNG")]
)
def test_songs_are_rendered(client: Client, tmp_path: Path, form: Any, magic: bytes) -> None:
    tune = files.read(TUNES[1])
    data = client.render(tune, form)
    assert data.startswith(magic)
    if form == "mid":
        (tmp_path / "again.mid").write_bytes(data)
        assert [n[:3] for n in files.read(tmp_path / "again.mid").parts[0].notes] == [
            n[:3] for n in tune.parts[0].notes
        ]


# ------------------------------------------------------------------------------------ refusals

TUNE = {"song": {"parts": [{"notes": [{"onset": 0, "duration": 1, "pitch": 60}]}]}}
BAD = [
    ("melody/generate", {"n": 0}, 422, "n: "),
    ("melody/generate", {"n": 1, "colour": 3}, 422, "colour: "),
    ("melody/generate", {"metre": "7/x"}, 422, "is not a metre"),
    ("melody/generate", {"metre": "64/1"}, 422, "longer than this model's longest bar"),
    ("melody/generate", {"beam": 3}, 422, "a beam searches texts"),
    ("melody/generate", {"temperature": 0.001}, 422, "a temperature is 0"),
    ("digits/generate", {"bars": 2}, 422, "models of melodies alone"),
    ("nobody/generate", {}, 404, "no such model"),
    ("melody/vary", {"thing": {}}, 422, "exactly one of"),
    ("melody/vary", {"thing": {"text": "a", "z": [[1]]}}, 422, "exactly one of"),
    ("melody/reconstruct", {"thing": {"text": "la la"}}, 422, "takes a song"),
    ("melody/reconstruct", {"thing": {"z": [[0.5]]}}, 422, "128 dimensions, not 1"),
    ("melody/decode", {"z": [[0.5], [1, 2]]}, 422, "several lengths"),
    ("melody/decode", {"z": [[0.5]]}, 422, "128 dimensions, not 1"),
    ("melody/reconstruct", {"thing": {"file": "aGVsbG8="}}, 422, "the file"),
    ("melody/reconstruct", {"thing": {"file": "=="}}, 422, "file"),
    ("melody/reconstruct", {"thing": {"song": {"parts": [{"notes": []}]}}}, 422, "no "),
    ("melody/reconstruct", {"thing": TUNE | {"track": 9}}, 422, "track"),
    ("sentences/reconstruct", {"thing": {"text": "  "}}, 422, "nothing to read"),
    ("sentences/reconstruct", {"thing": TUNE}, 422, "takes a text"),
    ("sentences/decode", {"z": [[0.0] * 3]}, 422, "64 dimensions, not 3"),
    ("avatars/reconstruct", {"thing": {"z": [[0.0] * 3]}}, 422, "48 dimensions, not 3"),
    ("avatars/reconstruct", {"thing": {"file": "aGVsbG8="}}, 422, "the file"),
    ("melody/interpolate", {"a": TUNE}, 422, "an interpolation has"),
    ("melody/interpolate", {"a": TUNE, "b": TUNE, "corners": [TUNE] * 4}, 422, "an interpolation has"),
]  # fmt: skip


@pytest.mark.parametrize("path, body, status, sentence", BAD)
def test_bad_input_costs_one_sentence(url: str, path: str, body: Any, status: int, sentence: str) -> None:
    answer = httpx.post(f"{url}/v1/models/{path}", json=body)
    told = answer.json()["error"]
    assert answer.status_code == status and sentence in told and "\n" not in told and len(told) < 400


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"nul", b'{"n": NaN}', b"\xff\xfe", b'{"n": 1e999}'])
def test_bodies_that_are_no_json(url: str, data: bytes) -> None:
    answer = httpx.post(
        f"{url}/v1/models/melody/generate", content=data, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422 and answer.json()["error"]
    assert httpx.get(f"{url}/v1/nothing").json() == {"error": "there is nothing at this address"}


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    with served(Settings(models=("melody",), queue=2, rate=0, log=False)) as url, Client(url) as client:
        path, long = f"{url}/v1/models/melody/generate", {"n": 64, "bars": 32}

        def ask(seed: int) -> tuple[int, float, str]:
            begun = time.monotonic()
            answer = httpx.post(path, json=long, timeout=60)
            return answer.status_code, time.monotonic() - begun, answer.headers.get("retry-after", "")

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, range(8)))
        answered = [one for one in found if one[0] == 200]
        refused = [one for one in found if one[0] == 503]
        assert len(answered) >= 2 and len(refused) >= 4 and len(answered) + len(refused) == 8
        assert all(one[2] == "1" for one in refused)
        assert max(one[1] for one in refused) < min(one[1] for one in answered)
        assert client.generate("melody", Generate(seed=1)).things
        assert 'seqvae_refusals_total{reason="queue"}' in httpx.get(f"{url}/metrics").text


def test_deadlines_pass_and_clients_that_leave_free_their_slots() -> None:
    with served(Settings(models=("melody",), deadline=0.4, rate=0, log=False)) as url, Client(url) as client:
        with pytest.raises(Refused, match="too busy") as late:
            client.generate("melody", Generate(n=64, bars=64))
        assert late.value.status == 503 and late.value.retry_after == 1
        assert client.generate("melody", Generate(bars=2)).things
    with served(Settings(models=("melody",), deadline=600, rate=0, log=False)) as url:
        ask, before = {"n": 64, "bars": 64}, figure(url, "seqvae_tokens_total")  # 2,048 windows
        with httpx.stream("POST", f"{url}/v1/models/melody/generate?stream=true", json=ask) as answer:
            next(answer.iter_bytes())
        for _ in range(1000):
            if slots(url) == 0:
                break
            time.sleep(0.01)
        assert slots(url) == 0 and 0 < figure(url, "seqvae_tokens_total") - before < 2048 * 6  # of about 13


def slots(url: str) -> float:
    return figure(url, "seqvae_slots_in_use")


def figure(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


# ------------------------------------------------------------------------------------ whatever comes

schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())


@schema.parametrize()
@settings(max_examples=15, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None)
def test_no_request_makes_a_fault(case: Any, url: str) -> None:
    """Requests made from the service's own description, right and wrong ones, sent to the real server."""
    if "{model}" in case.path:
        case.path_parameters["model"] = ("digits", "melody", "sentences", str(case.path_parameters["model"]))[
            len(str(case.body)) % 4
        ]
    response = case.call(base_url=url)
    assert response.status_code < 500 or response.status_code == 503
    if response.status_code >= 400:
        assert response.json()["error"]
