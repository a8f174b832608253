"""The studio in a real browser against the real server: every control, no error, no request to another host.

A missing browser fails. Whatever the page logs as an error fails the test that caused it, unless the test
names the refusals it provokes.
"""

import base64
import json
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import served
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from seqvae import files
from seqvae.pipeline import Pipeline
from seqvae.service.app import Settings
from seqvae.song import Metre, Note, Part, Song

DATA = Path(__file__).parent.parent / "data"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
PATIENCE = 60_000  # milliseconds; a training may share the cores
NAMELESS = """[...document.querySelectorAll('button, input, select, textarea, [role=slider], a[href]')]
  .filter((one) => one.checkVisibility())
  .filter((one) => ![one, ...(one.labels ?? [])].some((told) => (told.ariaLabel || told.textContent).trim()))
  .map((one) => one.outerHTML)"""
SPY = """
window.started = [];
const start = AudioScheduledSourceNode.prototype.start;
AudioScheduledSourceNode.prototype.start = function (when) {
  if (this.frequency) window.started.push([when, this.frequency.value]);
  return start.apply(this, arguments);
};
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    with served(Settings(data=tmp_path_factory.mktemp("data"), log=False)) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


Opens = Callable[..., Page]


@pytest.fixture
def opens(browser: Browser, url: str) -> Iterator[Opens]:
    """Opens the page at a hash; at the end, nothing went wrong in it and nothing left the host."""
    contexts, wrong = [], []

    def begin(
        hash: str = "", size: tuple[int, int] = (1400, 900), refusals: tuple[int, ...] = (), **more: Any
    ):
        base = more.pop("base", url)
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce", **more
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(SPY)
        page.on(
            "console",
            lambda said: (
                wrong.append(said.text)
                if said.type in ("error", "warning") and "Failed to load resource" not in said.text
                else None
            ),
        )
        page.on(
            "response",
            lambda answer: (
                wrong.append(f"{answer.status} {answer.url}")
                if answer.status >= 400 and answer.status not in refusals
                else None
            ),
        )
        page.on("pageerror", lambda fault: wrong.append(str(fault)))
        page.on(
            "request",
            lambda request: (
                wrong.append(request.url) if not request.url.startswith((base, "data:", "blob:")) else None
            ),
        )
        page.goto(f"{base}/{hash}")
        return page

    yield begin
    for context in contexts:
        context.close()
    assert not wrong


def ready(page: Page) -> Page:
    page.wait_for_selector("body[data-ready]")
    return page


def view(page: Page, name: str = "music") -> Locator:
    return page.locator(f"#view-{name}")


def part(view: Locator, name: str) -> Locator:
    return view.locator(f"[data-part={name}]")


def title(view: Locator) -> Locator:
    return part(view, "title")


def cards(view: Locator) -> Locator:
    return view.locator(".card")


def put(slider: Locator, value: float) -> None:
    """A slider moved as a hand would, to a value."""
    slider.evaluate(
        "(one, value) => { one.value = value; one.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )


def drawn(canvas: Locator) -> str:
    """What is on a canvas."""
    return str(canvas.evaluate("one => one.toDataURL()"))


def stage(view: Locator) -> str:
    return drawn(view.locator(".sheet canvas"))


def dropped(page: Page, target: Locator, paths: list[Path]) -> None:
    """Files let go over an element."""
    given = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in paths]
    transfer = page.evaluate_handle(
        """given => { const transfer = new DataTransfer();
        for (const [name, letters] of given)
          transfer.items.add(new File([Uint8Array.from(atob(letters), (c) => c.charCodeAt(0))], name));
        return transfer; }""",
        given,
    )
    target.dispatch_event("dragover", {"dataTransfer": transfer})
    target.dispatch_event("drop", {"dataTransfer": transfer})


def folder_dropped(page: Page, target: Locator, folder: Path) -> None:
    """A folder let go over an element, as the desktop does it."""
    box = target.bounding_box()
    assert box
    place = {"x": box["x"] + 20, "y": box["y"] + 20}
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    protocol = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        protocol.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def player(page: Page, about: str) -> Any:
    """What the player says; `about` is an expression in `player`."""
    return page.evaluate(f"import('/studio/song.js').then(({{ player }}) => {about})")


def until(holds: Callable[[], Any]) -> Any:
    """Waits for what the page cannot be asked to wait for, as its policy forbids to evaluate strings."""
    for _ in range(PATIENCE // 50):
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about")


# ------------------------------------------------------------------------------------------- the page


def test_the_first_picture_and_the_tabs(opens: Opens):
    page = ready(opens())
    music = view(page)
    expect(cards(music)).to_have_count(6)
    expect(title(music)).to_have_text("Melody 1")
    expect(part(music, "facts")).to_contain_text("4/4")
    ink = "one => new Set(one.getContext('2d').getImageData(0, 0, one.width, one.height).data).size"
    assert music.locator(".sheet canvas").evaluate(ink) > 8  # shades; an empty canvas has one
    assert page.evaluate("performance.getEntriesByName('first-picture').length") == 1
    for key, name in (
        ("ArrowRight", "text"),
        ("ArrowRight", "images"),
        ("End", "training"),
        ("Home", "music"),
    ):
        page.locator("[role=tab][aria-selected=true]").press(key)
        expect(page.locator(f"#tab-{name}")).to_be_focused()
        expect(view(page, name)).to_be_visible()
    expect(page.locator("[role=tabpanel]:visible")).to_have_count(1)
    page.locator("#tab-images").click()
    expect(cards(view(page, "images"))).to_have_count(8)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_and_every_control_has_a_name(opens: Opens, scheme: str):
    page = ready(opens(color_scheme=scheme))
    for name in ("music", "text", "images", "training"):
        page.locator(f"#tab-{name}").click()
        expect(view(page, name).locator("h2").first).not_to_have_text("…")
        for width in (390, 1024, 1600):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(NAMELESS) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", ground)[:3])) > 3 * 128
    assert light == (scheme == "light")


def test_theme_is_chosen_and_kept(opens: Opens):
    page = ready(opens(color_scheme="light"))
    before = stage(view(page))
    for name in ("light", "dark"):
        page.locator("#theme").click()
        expect(page.locator("#theme")).to_have_text(f"Theme: {name}")
    assert stage(view(page)) != before  # canvases are drawn anew
    page.reload()
    expect(ready(page).locator("#theme")).to_have_text("Theme: dark")


# ------------------------------------------------------------------------------------------- music


def test_playing_keeps_time_and_bar(opens: Opens):
    page = ready(opens("#music?bars=2&tempo=120&seed=8&n=3"))
    music = view(page)
    music.get_by_role("button", name="Play", exact=True).click()
    expect(page.locator("#play")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#where")).to_contain_text("of 2")
    expect(music.locator(".cursor")).to_be_visible()
    until(lambda: page.evaluate("window.started.length > 4"))
    first = player(page, "player.line.notes.map((note) => [note.onset, note.pitch])")
    heard = page.evaluate("window.started")[:4]
    for (when, hertz), (onset, pitch) in zip(heard, first, strict=False):  # a quarter lasts half a second
        assert when - heard[0][0] == pytest.approx((onset - first[0][0]) / 2, abs=1e-6)
        assert hertz == pytest.approx(440 * 2 ** ((pitch - 69) / 12), rel=1e-4)
    jump = page.evaluate(
        """async () => { const { player } = await import('/studio/song.js');
        const [before, at] = [player.beat, player.now];
        document.querySelectorAll('#view-music .card .face')[1].click();
        await new Promise((go) => setTimeout(go, 300));
        const moved = (player.now - at) * 2;
        return [player.playing, (player.beat - before - moved) / player.line.length]; }"""
    )
    assert jump[0] and jump[1] == pytest.approx(round(jump[1]), abs=1e-3)  # whole rounds of the loop apart
    expect(page.locator("#hearing")).to_have_text("Melody 2")
    put(page.locator("#volume"), 0.2)
    page.locator("#instrument").select_option("flute")
    page.locator("#loop").uncheck()
    until(lambda: not player(page, "player.playing"))
    expect(page.locator("#play")).to_have_attribute("aria-pressed", "false")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_attribute("aria-pressed", "true")
    page.locator("#play").click()
    assert player(page, "player.beat") is None
    expect(music.locator(".cursor")).to_be_hidden()


def test_a_model_of_sixteen_bars_is_asked_for_sixteen(opens: Opens):
    """What lies on the shelf stays; going back leaves the number of bars as it is."""
    page = ready(opens("#music?bars=4&seed=3&n=2"))
    music = view(page)
    expect(music.locator("[name=bars]")).to_have_value("4")
    part(music, "model").select_option("melody-16")
    expect(music.locator("[name=bars]")).to_have_value("16")
    part(music, "generate").click()
    expect(cards(music)).to_have_count(4)
    cards(music).nth(2).locator(".face").click()
    expect(part(music, "facts")).to_contain_text("16 bars")
    part(music, "model").select_option("melody")
    expect(music.locator("[name=bars]")).to_have_value("16")


def test_shelf_makes_takes_and_sends(opens: Opens):
    page = ready(opens())
    music = view(page)
    for name, value in (("bars", "2"), ("tempo", "90"), ("temperature", "0.5"), ("seed", "5"), ("n", "3")):
        music.locator(f"[name={name}]").fill(value)
    music.locator("[name=metre]").select_option("6/8")
    music.locator("[name=key]").select_option("D major")
    music.locator("[name=program]").select_option("73")
    part(music, "generate").click()
    expect(cards(music)).to_have_count(9)
    expect(music.locator("[name=seed]")).to_have_value("6")  # the next ones are new
    cards(music).nth(6).locator(".face").click()
    expect(part(music, "facts")).to_contain_text(re.compile(r"6/8 · D m\w+ · ♩ = 90 · 2 bars"))
    page.locator("#play").click()

    put(music.locator("[name=amount]"), 0.6)
    part(music, "more").click()
    expect(cards(music)).to_have_count(13)
    expect(cards(music).last.locator(".name")).to_have_text("Like Melody 7 4")
    music.get_by_role("button", name="More like Melody 2").click()
    expect(cards(music)).to_have_count(17)
    part(music, "again").click()
    expect(title(music)).to_have_text("Melody 7, as the model hears it")
    part(music, "keep").click()
    expect(cards(music)).to_have_count(18)

    face = cards(music).nth(7).locator(".face")
    face.press("c")
    expect(music.get_by_role("button", name="Put Melody 8 into C")).to_have_attribute("aria-pressed", "true")
    face.press("v")
    expect(cards(music)).to_have_count(22)
    face.press("ArrowLeft")
    expect(cards(music).nth(6).locator(".face")).to_be_focused()
    cards(music).nth(6).locator(".face").press("Delete")
    expect(cards(music)).to_have_count(21)
    music.get_by_role("button", name="Put Melody 6 into D").click()
    expect(music.locator(".slot-3 .face .name")).to_have_text("Melody 6")
    cards(music).nth(4).drag_to(music.locator(".slot.slot-1"))
    expect(music.locator(".slot-1 .face .name")).to_have_text("Melody 5")
    cards(music).nth(2).drag_to(cards(music).nth(3))
    expect(music.locator(".slot-0 .face .name")).to_have_text("Melody 3")
    expect(music.locator(".slot-1 .face .name")).to_have_text("Melody 4")
    music.get_by_role("button", name="Take Melody 2 off the shelf").click()
    expect(cards(music)).to_have_count(20)
    part(music, "clear").click()
    expect(cards(music)).to_have_count(4)  # the slots' stay


def test_two_files_and_the_way_between_them_in_time(opens: Opens):
    page = ready(opens())
    music = view(page)
    paths = [DATA / "crab_apple_lane.abc", DATA / "tin_shed_shuffle.mid"]
    dropped(page, music.locator(".slot.slot-0"), paths)
    expect(cards(music)).to_have_count(8)
    expect(music.locator(".slot-1 .face .name")).not_to_have_text("Melody 2")
    expect(part(music, "strip").locator(".step")).to_have_count(9)
    expect(part(music, "path-facts")).not_to_be_empty()
    way = part(music, "t")
    put(way, 0)
    expect(title(music)).to_have_text("A, as the model hears it")
    first = stage(music)
    page.locator("#play").click()
    until(lambda: player(page, "player.beat > 0"))
    for step in range(1, 9):
        put(way, step)
    expect(title(music)).to_have_text("B, as the model hears it")
    expect(page.locator("#play")).to_have_attribute("aria-pressed", "true")  # it went on playing
    page.locator("#play").click()
    assert stage(music) != first
    way.focus()
    way.press("ArrowLeft")
    expect(title(music)).to_have_text("88 % from A to B")
    expect(way).to_have_attribute("aria-valuetext", "88 % of the way from A to B")
    part(music, "strip").locator(".step").nth(2).click()
    expect(title(music)).to_have_text("25 % from A to B")
    music.get_by_label("Unequal lengths").select_option("stretch")
    expect(part(music, "path-facts")).to_contain_text("stretched")
    music.get_by_role("button", name="Play the journey").click()
    expect(title(music)).to_have_text("Journey from A to B")
    page.locator("#play").click()
    name = music.locator(".slot-0 .face .name").inner_text()
    music.get_by_role("button", name="Swap A and B").click()
    expect(music.locator(".slot-1 .face .name")).to_have_text(name)

    with page.expect_response("**/v1/jobs"):
        music.get_by_role("button", name="Make files of the way").click()
    expect(page.locator("#status")).to_contain_text("Training")
    page.locator("#tab-training").click()
    training = view(page, "training")
    training.get_by_role("button", name="Files of a way").click()
    expect(part(training, "job-facts")).to_contain_text("done", timeout=4 * PATIENCE)
    training.get_by_role("button", name="Hear journey of the way").click()
    expect(page.locator("#hearing")).to_have_text("journey, the way")
    training.locator("summary").click()
    with page.expect_download() as download:
        training.get_by_role("button", name="Download journey.wav").click()
    assert download.value.path().read_bytes()[:4] == b"RIFF"


def test_a_file_is_chosen_and_a_bad_one_is_refused_in_words(opens: Opens, tmp_path: Path):
    page = ready(opens(refusals=(422,)))
    music = view(page)
    music.get_by_label("Open a file as D").set_input_files(DATA / "heron_weather.mid")
    expect(music.locator(".slot-3 .face")).to_be_visible()
    expect(cards(music)).to_have_count(7)
    (tmp_path / "broken.mid").write_bytes(b"MThd nothing of the kind")
    music.get_by_label("Open a file as A").set_input_files(tmp_path / "broken.mid")
    expect(page.locator("#status")).to_have_class(re.compile("fault"))
    expect(page.locator("#status")).to_have_text(re.compile(r"^[A-Z].+\.$"))
    expect(cards(music)).to_have_count(7)


def test_the_square_is_walked_with_pointer_and_keys(opens: Opens):
    page = ready(opens())
    music = view(page)
    pad = part(music, "pad")
    expect(part(music, "pad-facts")).to_have_text("drag, or use the arrow keys")
    before = stage(music)
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    for step in range(1, 11):
        page.mouse.move(box["x"] + box["width"] * step / 20, box["y"] + box["height"] * step / 10)
        page.wait_for_timeout(40)
    page.mouse.up()
    expect(title(music)).to_have_text("50 % C, 50 % D")
    assert stage(music) != before
    found = page.evaluate("performance.getEntriesByName('morph-pad').map((one) => one.duration)")
    assert found and all(one > 0 for one in found)
    pad.focus()
    pad.press("ArrowUp")
    expect(pad).to_have_attribute("aria-valuetext", "50 % across, 95 % down")
    expect(title(music)).to_have_text("48 % C, 48 % D")
    pad.press("Shift+ArrowRight")
    expect(pad).to_have_attribute("aria-valuenow", "70")
    for letter in "ABCD":
        music.get_by_role("button", name=f"Go to corner {letter}").click()
        expect(title(music)).to_have_text(f"100 % {letter}")
    music.get_by_role("button", name="Middle").click()
    expect(title(music)).to_have_text("25 % A, 25 % B, 25 % C, 25 % D")


def test_attributes_move_the_stage_and_new_ones_are_taught(opens: Opens):
    page = ready(opens(size=(1400, 1400)))
    music = view(page)
    sliders = part(music, "sliders").locator("input")
    expect(sliders).not_to_have_count(0)
    before, known = stage(music), sliders.count()
    sliders.first.focus()
    sliders.first.press("End")
    expect(title(music)).to_contain_text("Melody 1, note-density +2")
    assert stage(music) != before
    part(music, "reset").click()
    expect(title(music)).to_have_text("Melody 1")
    expect(sliders.first).to_have_value("0")
    assert stage(music) == before

    music.locator("summary").click()
    music.get_by_label("Name").fill("leaping")
    music.get_by_role("button", name="Learn it").click()
    expect(page.locator("#status")).to_have_text("It takes two melodies of each at least.")
    trays = music.locator(".tray")
    cards(music).nth(1).drag_to(trays.nth(0))
    cards(music).nth(2).drag_to(trays.nth(0))
    for i in (3, 4):
        cards(music).nth(i).locator(".face").click()
        music.get_by_role("button", name="Add what is on the stage to much of it").click()
    page.locator("#play").click()
    for tray in trays.all():
        expect(tray.locator("output")).to_have_text("2")
    music.get_by_role("button", name="Learn it").click()
    expect(sliders).to_have_count(known + 1)
    expect(music.get_by_label("leaping")).to_be_focused()


def test_the_map_is_walked_with_pointer_and_keys(opens: Opens):
    page = ready(opens(size=(1400, 1300)))
    music = view(page)
    plane = part(music, "plane")
    expect(part(music, "map-facts")).to_contain_text("training places")
    bare = drawn(plane.locator("canvas"))
    plane.click(position={"x": 100, "y": 90})
    expect(title(music)).to_have_text("From the map")
    first = stage(music)
    assert drawn(plane.locator("canvas")) != bare  # the nearest point is ringed
    for _ in range(3):
        plane.press("Shift+ArrowRight")
    expect(plane).to_have_attribute("aria-valuetext", re.compile("across"))
    until(lambda: stage(music) != first)


def test_downloads_are_what_they_say(opens: Opens, tmp_path: Path):
    page = ready(opens("#music?seed=2&n=1&bars=2"))
    heads = {"MIDI": b"MThd", "MusicXML": b"<?xml", "WAV": b"RIFF", "PNG": b"\x89PNG"}
    for name, head in heads.items():
        with page.expect_download() as download:
            view(page).get_by_role("button", name=f"Download as {name}").click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.stem == "melody-1" and path.read_bytes().startswith(head)
        if name in ("MIDI", "MusicXML"):
            assert files.read(path).parts[0].notes


def test_a_link_brings_everything_back(opens: Opens, browser: Browser):
    page = ready(opens("#music?seed=3&bars=2&n=4"))
    music = view(page)
    music.get_by_label("Open a file as B").set_input_files(DATA / "heron_weather.mid")
    expect(music.locator(".slot-1 .face .name")).not_to_have_text("Melody 2")
    part(music, "more").click()
    expect(cards(music)).to_have_count(9)
    part(music, "pad").focus()
    part(music, "pad").press("ArrowLeft")
    expect(title(music)).to_contain_text("% A")
    slider = part(music, "sliders").locator("input").nth(1)
    put(slider, 1)
    expect(title(music)).to_contain_text("pitch +1")
    page.locator("#share").click()
    expect(page.locator("#status")).to_contain_text("link")
    there = opens("#" + page.url.partition("#")[2])
    again = view(ready(there))
    expect(cards(again)).to_have_count(9)
    expect(title(again)).to_have_text(title(music).inner_text())
    expect(again.locator(".slot-1 .face .name")).to_have_text(
        music.locator(".slot-1 .face .name").inner_text()
    )
    assert stage(again) == stage(music)


def test_a_link_says_what_it_leaves_out(opens: Opens, tmp_path: Path):
    """A song of 6,000 notes that no compression makes small."""
    chance = random.Random(0)
    notes = (Note(i / 4, chance.random() / 3 + 0.1, chance.randint(40, 90)) for i in range(6000))
    files.write(Song((Part(tuple(notes)),), ((0.0, Metre(4, 4)),)), tmp_path / "long.mid")
    page = ready(opens("#music?seed=3&bars=2&n=2"))
    view(page).get_by_label("Open a file as B").set_input_files(tmp_path / "long.mid")
    expect(view(page).locator(".slot-1 .face .name")).to_have_text("long")
    page.locator("#share").click()
    expect(page.locator("#status")).to_contain_text("stay behind")
    again = view(ready(opens("#" + page.url.partition("#")[2])))
    expect(cards(again)).to_have_count(2)


def test_progress_does_not_cover_what_was_said_since(opens: Opens):
    page = ready(opens("#music?seed=3&bars=2&n=2"))
    told = page.evaluate(
        """async () => {
          const { during, say } = await import("/studio/api.js");
          const status = document.getElementById("status");
          const told = [];
          for (const sentence of ["", "The link is copied."]) {
            say("");
            const work = during("Waiting", new Promise((done) => setTimeout(done, 600)));
            if (sentence) say(sentence);
            await new Promise((go) => setTimeout(go, 400));
            told.push(status.textContent);
            await work;
            told.push(status.textContent);
          }
          return told;
        }"""
    )
    assert told == ["Waiting …", "", "The link is copied.", "The link is copied."]


# ------------------------------------------------------------------------------------------- text, images


def test_sentences_are_typed_walked_and_steered(opens: Opens):
    page = ready(opens("#text"))
    text = view(page, "text")
    expect(cards(text)).to_have_count(6)
    text.get_by_label("Sentence A").fill("the dog ran home")
    text.get_by_label("Sentence A").press("Enter")
    text.get_by_label("Sentence B").fill("she opened the window")
    text.get_by_label("Sentence B").blur()
    steps = part(text, "strip").locator(".step")
    expect(steps.last).to_contain_text("window")
    put(part(text, "t"), 8)
    expect(text.locator("blockquote")).to_contain_text("window")
    part(text, "t").press("Home")
    expect(title(text)).to_have_text("A, as the model sees it")
    with page.expect_request("**/interpolate") as asked:
        text.locator("[name=beam]").fill("4")
        text.locator("[name=beam]").blur()
    assert json.loads(asked.value.post_data or "")["beam"] == 4
    text.locator("[name=beam]").fill("0")
    text.locator("[name=temperature]").fill("0.8")
    with page.expect_request("**/generate") as asked:
        part(text, "generate").click()
    assert json.loads(asked.value.post_data or "")["temperature"] == 0.8
    expect(cards(text)).to_have_count(12)
    part(text, "sliders").locator("input").first.focus()
    page.keyboard.press("End")
    expect(title(text)).to_contain_text("length +2")
    text.get_by_label("Sentence C").fill("the cat slept")
    text.get_by_label("Sentence C").press("Enter")
    text.get_by_role("button", name="Go to corner C").click()
    expect(text.locator("blockquote")).to_contain_text("cat")
    part(text, "plane").click(position={"x": 120, "y": 80})
    expect(title(text)).to_have_text("From the map")
    with page.expect_download() as download:
        text.get_by_role("button", name="Shelf as .txt").click()
    assert len(download.value.path().read_text().splitlines()) == 12
    text.locator("summary").click()
    text.get_by_label("Name").fill("canine")
    text.get_by_label("little of it").fill("the cat slept\nthe cat ran\nher cat is here")
    text.get_by_label("much of it").fill("the dog slept\nthe dog ran\nher dog is here")
    text.get_by_role("button", name="Learn it").click()
    expect(text.get_by_label("canine")).to_be_focused()


def test_pictures_are_opened_walked_and_steered(opens: Opens, tmp_path: Path):
    page = ready(opens("#images"))
    images = view(page, "images")
    expect(part(images, "facts")).to_be_empty()
    part(images, "model").select_option("digits")
    large = images.locator("img.large")
    expect(large).to_have_js_property("naturalWidth", 8)
    expect(cards(images)).to_have_count(8)
    with page.expect_download() as download:
        images.get_by_role("button", name="Download as PNG").click()
    download.value.save_as(tmp_path / "one.png")
    images.get_by_label("Open a file as A").set_input_files(tmp_path / "one.png")
    expect(images.locator(".slot-0 .face .name")).to_have_text("one")
    expect(part(images, "strip").locator("img")).to_have_count(9)
    seen = {large.get_attribute("src")}
    put(part(images, "t"), 4)
    expect(title(images)).to_have_text("50 % from A to B")
    seen.add(large.get_attribute("src"))
    part(images, "sliders").locator("input").first.focus()
    page.keyboard.press("End")
    expect(title(images)).to_contain_text("brightness +2")
    images.get_by_role("button", name="Go to corner D").click()
    expect(title(images)).to_have_text("100 % D")
    seen.add(large.get_attribute("src"))
    part(images, "plane").click(position={"x": 120, "y": 80})
    expect(title(images)).to_have_text("From the map")
    seen.add(large.get_attribute("src"))
    assert len(seen) == 4
    part(images, "more").click()
    expect(cards(images)).to_have_count(13)
    part(images, "again").click()
    expect(title(images)).to_contain_text("as the model sees it")


# ------------------------------------------------------------------------------------------- training, words


def test_a_training_is_watched_heard_and_used(opens: Opens, tmp_path: Path):
    folder = tmp_path / "tunes"
    folder.mkdir()
    for i, song in enumerate(Pipeline.from_pretrained("melody").sample(60, bars=4, seed=1)):
        files.write(song, folder / f"tune-{i}.mid")
    (folder / "notes.doc").write_text("no music")
    page = ready(opens("#training"))
    training = view(page, "training")
    expect(part(training, "start")).to_be_enabled()
    part(training, "start").click()
    expect(page.locator("#status")).to_have_text("Choose a folder or files first.")
    training.get_by_label("Choose files").set_input_files([DATA / "grace.abc"])
    expect(part(training, "chosen")).to_contain_text("1 file,")
    dropped(page, part(training, "drop"), sorted(folder.iterdir())[:5])
    expect(part(training, "chosen")).to_contain_text("4 files")  # the fifth is no music
    folder_dropped(page, part(training, "drop"), tmp_path)
    expect(part(training, "chosen")).to_contain_text("60 files")
    training.get_by_label("Choose files").set_input_files([DATA / "grace.abc"])
    training.get_by_label("Choose a folder").set_input_files(folder)
    expect(part(training, "chosen")).to_contain_text("60 files")
    expect(part(training, "chosen")).to_contain_text("1 of other kinds left out")
    training.locator("[name=recipe]").select_option("small")
    training.locator("[name=steps]").fill("30")
    training.locator("[name=evaluate_every]").fill("10")
    training.locator("[name=settings]").fill("latent=8 batch_size=8 rise=1 encoder=16 decoder=24 head=16")
    expect(training.locator("[name=start] option")).to_contain_text(
        ["nothing", "avatars", "digits", "melody"]
    )
    part(training, "start").click()
    expect(part(training, "job-facts")).to_contain_text("done", timeout=6 * PATIENCE)
    for chart in part(training, "charts").locator("svg").all():
        expect(chart.locator("circle")).to_have_count(3)
        expect(chart).to_have_attribute("aria-label", re.compile("after 10 steps .*, 20 steps .*, 30 steps"))
    expect(part(training, "samples").locator("li")).to_have_count(3)
    newest = part(training, "samples").locator("li").first
    expect(newest.get_by_role("button", name="Hear sample")).to_have_count(3)
    newest.get_by_role("button", name="Hear original then reconstruction 1").click()  # a sample may be silent
    expect(page.locator("#hearing")).to_have_text("original then reconstruction 1, step 30")
    expect(newest.locator("canvas")).not_to_have_count(0)
    page.locator("#play").click()
    until(lambda: "job=" in page.url)
    known = part(training, "job-title").inner_text()
    page.reload()  # the link brings the training back
    expect(part(training, "job-title")).to_have_text(known)
    expect(part(training, "samples").locator("li")).to_have_count(3)
    training.locator("summary").click()
    with page.expect_download() as download:
        training.get_by_role("button", name="Download model.safetensors").click()
    assert download.value.path().stat().st_size > 1000

    training.get_by_label("Choose a folder").set_input_files(folder)
    part(training, "start").click()
    part(training, "cancel").click()
    expect(part(training, "job-facts")).to_contain_text("cancelled")
    expect(part(training, "jobs").locator("li")).not_to_have_count(1)
    rows = part(training, "jobs").locator("li").count()
    part(training, "delete").click()
    expect(part(training, "jobs").locator("li")).to_have_count(rows - 1)
    training.locator(".joblist .done button", has_text="Training").first.click()
    part(training, "use").click()
    music = view(page)
    expect(music).to_be_visible()
    expect(part(music, "model")).to_have_value(re.compile("job-"))
    expect(cards(music)).to_have_count(6)


@pytest.fixture(scope="module")
def strict(tmp_path_factory) -> Iterator[str]:
    """A server that wants a key and little to do."""
    keys = (sha256(b"open sesame").hexdigest(),)
    data = tmp_path_factory.mktemp("strict")
    with served(Settings(models=("digits",), data=data, keys=keys, rate=2.0, log=False)) as url:
        yield url


def test_a_key_is_asked_for_and_a_busy_server_is_said(opens: Opens, strict: str):
    page = opens("#images", base=strict, refusals=(401, 429))
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_role("button").click()
    expect(dialog).to_be_visible()  # asked again
    dialog.get_by_label("API key").fill("open sesame")
    dialog.get_by_role("button").click()
    images = view(ready(page), "images")
    expect(cards(images)).to_have_count(8)
    for _ in range(6):
        part(images, "generate").click()
    expect(page.locator("#status")).to_contain_text("The server is busy; asking again in")
    expect(cards(images)).to_have_count(56)  # nothing was lost
