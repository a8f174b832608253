"""service/cluster.py: two replicas on Ray Serve answer as one process does, and keep nothing."""

import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from test_serving import served

from seqvae.client import Client, Refused, Step
from seqvae.service.schemas import Generate, How, Made, Morph, Thing

MODELS = ("--model", "melody", "--model", "digits", "--rate", 0)


def answers(client: Client) -> list[object]:
    """What one server says to requests of every kind."""
    a, b = client.generate("melody", Generate(n=2, bars=2, seed=3)).things
    digit = client.generate("digits", Generate(seed=4)).things[0]
    assert a.song is not None
    return [
        a,
        digit,
        [info.model_dump() for info in client.models()],
        client.interpolate("melody", a, b, steps=3, how=How(temperature=0.7, seed=5)),
        client.encode("digits", digit),
        client.render(a.song, "mid"),
        list(client.stream("generate", "melody", Generate(n=2, bars=2, seed=6))),
    ]


def test_two_replicas_answer_as_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one to the home folder
    with served(tmp_path, *MODELS) as plain:
        plain.ready()
        with Client(plain.url) as client:
            expected = answers(client)
    options = ("--engine", "ray", "--replicas", 2)
    with served(tmp_path / "ray", *MODELS, *options) as server:
        with Client(server.url) as client:  # which answers at once: replicas load before they are asked
            assert answers(client) == expected
            assert isinstance(expected[-1][-1], Made) and isinstance(expected[-1][0], Step)  # type: ignore[index]
            for call in (
                lambda: client.submit(Morph(a=Thing(text="a"), b=Thing(text="b"))),
                client.jobs,
                client.new_corpus,
                lambda: client.add_file("0" * 32, b"", "a.mid"),
            ):
                with pytest.raises(Refused, match="replica") as fault:
                    call()
                assert fault.value.status == 501
            with pytest.raises(Refused, match="no such model"):
                client.model("job-1")
        assert (
            httpx.get(server.url, headers={"Host": "evil.example"}).status_code == 403
        )  # each has its guard

        def process(_: int) -> str:
            figures = httpx.get(f"{server.url}/metrics").text
            return re.findall(r"^process_start_time_seconds (.*)$", figures, re.M)[0]

        with ThreadPoolExecutor(8) as several:  # by chance all of one: 2^-199
            assert len(set(several.map(process, range(200)))) == 2
        assert server.stop() == 0
