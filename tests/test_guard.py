"""service/guard.py and telemetry.py: who is refused and why, what is counted and logged."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from seqvae.service import guard
from seqvae.service.guard import Buckets, Guard, hashed
from seqvae.service.telemetry import Telemetry, Watched

KEY = "a random key"
HOME = "http://127.0.0.1:8000"


async def _length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def _refused(request: Request, fault: Exception) -> JSONResponse:
    assert isinstance(fault, HTTPException)
    return JSONResponse({"error": fault.detail}, fault.status_code)


def house(**settings: Any) -> Guard:
    """A guarded app that gives its faults, and those met while it reads a body, as the service does."""
    paths = ("/", "/healthz", "/metrics", "/studio/{path:path}", "/v1/models")
    routes = [Route(path, _length, methods=["GET", "POST"]) for path in paths]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: _refused}), **settings)


def ask(
    app: ASGIApp,
    path: str = "/v1/models",
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: Any = None,
    client: str = "127.0.0.1",
    home: str = HOME,
) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url=home) as asker:
            return await asker.request(method, path, headers=headers, content=body)

    return asyncio.run(asked())


def refusal(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json" and answer.json().keys() == {"error"}
    return answer.json()["error"]


# --------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/nowhere", "/docs", "/v1//", "/studiox"])
def test_with_keys_everything_but_pages_and_probes_needs_one(path: str) -> None:
    answer = ask(house(keys=[hashed(KEY)]), path)
    assert "key" in refusal(answer, 401) and answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/", "/healthz", "/studio/studio.css"])
def test_pages_and_probes_are_open(path: str) -> None:
    assert ask(house(keys=[hashed(KEY)]), path).status_code == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY} ", 200),
        ("Bearer another", 200),
        (f"Basic {KEY}", 401),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {hashed(KEY)}", 401),  # who has read the file of hashes has no key
        ("Bearer ", 401),
        ("Bearer \xe9", 401),
    ],
)
def test_any_of_the_keys_opens_and_nothing_else(header: str, status: int) -> None:
    app = house(keys=[hashed("another"), hashed(KEY).upper()])
    answer = ask(app, headers={"Authorization": header.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.status_code == status


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    real = guard.hmac.compare_digest

    def noted(given: str, held: str) -> bool:
        compared.append(held)
        return real(given, held)

    monkeypatch.setattr(guard.hmac, "compare_digest", noted)
    keys = [hashed(KEY), hashed("another"), hashed("third")]
    assert ask(house(keys=keys), headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert compared == keys


# ------------------------------------------------------------------------------------- hosts, origins


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.7", 200),  # an address cannot be led elsewhere
        ("music.example", 200),  # allowed below
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example@localhost@x", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_a_name_that_is_not_ours_may_be_a_rebound_one(host: str, status: int) -> None:
    answer = ask(house(hosts=["Music.example"]), headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert "name" in refusal(answer, 403)


def test_where_there_are_keys_any_name_will_do() -> None:
    headers = {"Host": "evil.example", "Authorization": f"Bearer {KEY}"}
    assert ask(house(keys=[hashed(KEY)]), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (HOME, 200),
        ("https://127.0.0.1:8000", 200),  # TLS ends at a proxy
        ("https://studio.example", 200),  # allowed below
        ("https://studio.example.evil", 403),
        ("http://studio.example", 403),
        ("http://127.0.0.1:8001", 403),
        ("http://localhost:8000", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str, status: int) -> None:
    app = house(origins=["https://studio.example/"])
    for method in ("GET", "POST"):
        answer = ask(app, headers={"Origin": origin}, method=method)
        assert answer.status_code == status
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == (origin if "studio" in origin and status == 200 else None)


def test_a_preflight_needs_no_key_and_a_refusal_can_be_read_by_an_allowed_page() -> None:
    app = house(keys=[hashed(KEY)], origins=["https://studio.example"])
    asked = {
        "Origin": "https://studio.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = ask(app, headers=asked, method="OPTIONS")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://studio.example"
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    foreign = ask(app, headers=asked | {"Origin": "https://evil.example"}, method="OPTIONS")
    assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers
    refused = ask(app, headers={"Origin": "https://studio.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://studio.example"


def test_pages_run_nothing_foreign_and_stand_in_no_frame() -> None:
    for answer in (ask(house(), "/"), ask(house(), headers={"Host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


# ---------------------------------------------------------------------------------------------- size


async def _pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(100)


def test_a_body_is_as_large_as_allowed_and_no_larger() -> None:
    app = house(largest=1000)
    for body in (bytes(1000), _pieces(10)):
        assert ask(app, method="POST", body=body).text == "1000"
    for body in (bytes(1001), _pieces(11)):  # told beforehand, and found while it comes
        assert "0.001 MB" in refusal(ask(app, method="POST", body=body), 413)


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    read = False

    async def large() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield bytes(1001)

    headers = {"Content-Length": "1001"}
    refusal(ask(house(largest=1000), method="POST", body=large(), headers=headers), 413)
    assert not read


def test_an_endless_body_is_cut() -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(100)

    refusal(ask(house(largest=1000), method="POST", body=endless()), 413)
    assert taken == 11


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "²"])
def test_a_nonsensical_length_is_refused(length: str) -> None:
    headers = {"Content-Length": length.encode("latin-1")}
    refusal(ask(house(), headers=headers, method="POST", body=b"1"), 413)  # type: ignore[arg-type]


def test_fastapi_passes_the_size_on() -> None:
    """It turns other faults of reading a body into a 400."""
    app = FastAPI()

    @app.post("/v1/models")
    async def length(body: dict[str, str]) -> int:
        return len(body)

    many = json.dumps({str(i): "x" for i in range(100)}).encode()

    async def slices() -> AsyncIterator[bytes]:
        for at in range(0, len(many), 50):
            yield many[at : at + 50]

    headers = {"Content-Type": "application/json"}
    assert ask(Guard(app), method="POST", body=slices(), headers=headers).text == "100"
    assert ask(Guard(app, largest=400), method="POST", body=slices(), headers=headers).status_code == 413


def test_a_body_that_stays_away_frees_its_place() -> None:
    sent: list[Message] = []

    async def talk() -> None:
        pieces = asyncio.Queue[Message]()
        pieces.put_nowait({"type": "http.request", "body": b"x", "more_body": True})

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-length", b"9")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/models",
            "query_string": b"",
            "headers": headers,
        }
        await house(patience=0.05)(scope, pieces.get, send)

    asyncio.run(talk())
    assert sent[0]["status"] == 408 and b"did not come" in sent[1]["body"]


def test_a_long_answer_is_not_taken_for_a_slow_body() -> None:
    """Who streams waits for the client to leave by the same call that brings the body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert not (await receive()).get("more_body")
        try:
            await asyncio.wait_for(receive(), 0.2)
        except TimeoutError:
            await PlainTextResponse("still here")(scope, receive, send)

    async def talk() -> list[Message]:
        pieces, sent = asyncio.Queue[Message](), []
        pieces.put_nowait({"type": "http.request", "body": b"x", "more_body": False})

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-length", b"1")]
        scope = {"type": "http", "method": "POST", "path": "/v1/models", "headers": headers}
        await Guard(app, patience=0.05)(scope, pieces.get, send)
        return sent

    assert asyncio.run(talk())[1]["body"] == b"still here"


# ---------------------------------------------------------------------------------------------- rate


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_client_has_its_rate_and_twice_that_at_once() -> None:
    clock = Clock()
    app = house(rate=0.5, clock=clock)
    assert ask(app).status_code == 200  # a burst of one
    answer = ask(app)
    assert "wait" in refusal(answer, 429) and answer.headers["retry-after"] == "2"
    assert ask(app, client="127.0.0.2").status_code == 200  # others are not held up
    clock.seconds = 1.9
    assert ask(app).headers["retry-after"] == "1"
    clock.seconds = 2.0  # as it was told
    assert ask(app).status_code == 200
    assert ask(app).status_code == 429


def test_pages_and_probes_are_not_counted() -> None:
    app = house(rate=0.1, clock=Clock())
    assert {ask(app, path).status_code for path in ("/", "/healthz", "/studio/a.js") * 5} == {200}


def test_rate_zero_is_none() -> None:
    app = house(rate=0)
    assert {ask(app).status_code for _ in range(50)} == {200}


def test_each_key_has_a_rate_wherever_it_is_used_and_guessing_has_one_too() -> None:
    app = house(rate=1, keys=[hashed(KEY), hashed("other")], clock=Clock())
    mine = {"Authorization": f"Bearer {KEY}"}
    codes = [ask(app, headers=mine, client=f"10.0.0.{i}").status_code for i in range(3)]
    assert codes == [200, 200, 429]
    assert ask(app, headers={"Authorization": "Bearer other"}).status_code == 200
    codes = [ask(app, headers={"Authorization": f"Bearer {i}"}, client="::1").status_code for i in range(3)]
    assert codes == [401, 401, 429]


def test_all_addresses_of_an_ipv6_network_are_one_client() -> None:
    app = house(rate=0.5, clock=Clock())
    assert ask(app, client="2001:db8::1").status_code == 200
    assert ask(app, client="2001:db8::ffff:1%eth0").status_code == 429
    assert ask(app, client="2001:db8:0:1::1").status_code == 200


def test_buckets_keep_a_bounded_number_of_clients() -> None:
    clock = Clock()
    buckets = Buckets(0.5, clock)
    assert buckets.wait("first") == 0 and buckets.wait("first") == 2
    for i in range(2 * guard.MOST_CLIENTS):
        buckets.wait(str(i))
        assert i % 1000 or buckets.wait("first") == 2  # who comes often is not forgotten
    assert len(buckets.held) == guard.MOST_CLIENTS
    assert str(i) in buckets.held and "0" not in buckets.held  # who came last is known, who left is not
    clock.seconds = 1e9
    assert buckets.wait("first") == 0 and buckets.wait("first") > 0  # idleness saves up no more than a burst


def test_a_refusal_is_counted_by_its_reason() -> None:
    reasons: list[str] = []
    app = house(keys=[hashed(KEY)], rate=1, largest=1, clock=Clock(), refused=reasons.append)
    keyed = {"Authorization": f"Bearer {KEY}"}
    ask(app), ask(app), ask(app)
    ask(app, headers={"Origin": "null"})
    ask(app, headers=keyed, method="POST", body=b"12")
    ask(app, headers=keyed, method="POST", body=_pieces(1))
    ask(house(refused=reasons.append), headers={"Host": "x.example"})
    assert reasons == ["key", "key", "rate", "origin", "size", "size", "host"]


def test_there_are_no_websockets() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(house()({"type": "websocket", "path": "/v1", "headers": []}, send, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


# ----------------------------------------------------------------------------------------- telemetry


def watched(telemetry: Telemetry) -> ASGIApp:
    app = FastAPI()

    @app.get("/v1/jobs/{job}")
    def job(job: str) -> str:
        telemetry.log("inside", {"job": len(job)})
        return job

    @app.get("/healthz")
    def health() -> str:
        return "ok"

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret of the house")

    return Watched(Guard(app, keys=[hashed(KEY)], refused=telemetry.refused), telemetry)


KEYED = {"Authorization": f"Bearer {KEY}"}


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_request_has_an_id_in_answer_and_log(capsys: pytest.CaptureFixture[str]) -> None:
    app = watched(Telemetry())
    answer = ask(app, "/v1/jobs/private-title", headers=KEYED | {"X-Request-ID": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    inside, request = logged(capsys)
    assert inside["event"] == "inside" and inside["request_id"] == "mine-1"  # in a worker thread too
    assert request["event"] == "request" and request["level"] == "info"
    assert (request["route"], request["status"], request["method"]) == ("/v1/jobs/{job}", 200, "GET")
    assert request["bytes"] == len(answer.content) and request["seconds"] >= 0
    assert "private-title" not in json.dumps(request) and KEY not in json.dumps(request)


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, 'a"}\n{', "é"])
def test_an_id_that_is_none_is_replaced(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    headers = {k: v.encode() for k, v in {"X-Request-ID": given, **KEYED}.items()}
    name = ask(watched(Telemetry()), "/v1/jobs/1", headers=headers).headers["x-request-id"]  # type: ignore[arg-type]
    assert re.fullmatch("[0-9a-f]{16}", name)
    assert {line["request_id"] for line in logged(capsys)} == {name}


def test_what_nobody_caught_is_in_the_log_alone(capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(watched(Telemetry()), "/broken", headers=KEYED)
    assert answer.status_code == 500 and "secret" not in answer.text
    fault, request = logged(capsys)
    assert "secret of the house" in fault["trace"] and request["status"] == 500
    assert fault["request_id"] == request["request_id"] == answer.headers["x-request-id"]


def test_an_app_that_fails_before_its_answer_is_answered_for(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("secret of the house")

    telemetry = Telemetry()
    answer = ask(Watched(broken, telemetry), "/v1/x", headers={"X-Request-ID": "r1"})
    assert "secret" not in refusal(answer, 500) and "r1" in answer.json()["error"]
    fault, request = logged(capsys)
    assert fault["level"] == request["level"] == "error" and request["status"] == 500
    assert "secret of the house" in fault["trace"] and "Traceback" in fault["trace"]
    assert 'status="5xx"' in telemetry.text().decode()


def samples(telemetry: Telemetry) -> dict[str, float]:
    lines = telemetry.text().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


def test_figures_are_by_route_template_and_no_client_makes_labels() -> None:
    telemetry = Telemetry(log=False)
    app = watched(telemetry)
    for path in ("/v1/jobs/1", "/v1/jobs/2", "/nowhere/1", "/nowhere/2"):
        ask(app, path, headers=KEYED)
    ask(app, "/v1/jobs/1", method="BREW", headers=KEYED)
    ask(app, "/v1/jobs/1")
    found = samples(telemetry)
    counts = {name: n for name, n in found.items() if name.startswith("seqvae_request_seconds_count")}
    assert counts == {
        'seqvae_request_seconds_count{method="GET",route="/v1/jobs/{job}",status="2xx"}': 2,
        'seqvae_request_seconds_count{method="GET",route="none",status="4xx"}': 3,
        'seqvae_request_seconds_count{method="other",route="/v1/jobs/{job}",status="4xx"}': 1,
    }
    assert found['seqvae_refusals_total{reason="key"}'] == 1


def test_gauges_histograms_and_counters_are_told() -> None:
    telemetry = Telemetry()
    telemetry.queue.set(2)
    telemetry.slots.set(7)
    telemetry.stepped(5)
    found = samples(telemetry)
    assert (found["seqvae_queue_rows"], found["seqvae_slots_in_use"], found["seqvae_tokens_total"]) == (
        2,
        7,
        5,
    )
    assert found['seqvae_step_rows_bucket{le="4.0"}'] == 0 and found['seqvae_step_rows_bucket{le="8.0"}'] == 1
    assert found["process_resident_memory_bytes"] > 1e6


def test_probes_are_not_logged_unless_they_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(watched(Telemetry()), "/healthz").status_code == 200
    assert logged(capsys) == []
    ask(watched(Telemetry()), "/healthz", method="POST")
    assert [line["status"] for line in logged(capsys)] == [405]


def test_two_apps_share_no_figures() -> None:
    one, other = Telemetry(), Telemetry()
    one.tokens.inc()
    assert samples(other)["seqvae_tokens_total"] == 0
