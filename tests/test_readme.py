"""The README's commands are the ones CI runs, and each of its seqvae commands works as written."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from seqvae import files
from seqvae.cli import main
from seqvae.engine import models
from seqvae.pipeline import Pipeline

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
SHORT = {"train": ["--set", "steps=4", "--set", "evaluate_every=2", "--set", "rise=1"]}


def test_ci_runs_the_two_set_up_commands():
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    first, second = COMMANDS[:2]
    for command in (first, second):
        for piece in command.split(" && "):
            words = [word for word in shlex.split(piece) if word not in (".venv", ".venv/bin/activate", ".")]
            kept = [word for word in words if word in script]
            missing = set(words) - set(kept) - {"melodies"}
            assert not missing, f"{piece!r} is not in .ci/run: {missing}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder as the README has it: two songs, and a folder of MIDI files."""
    folder = tmp_path_factory.mktemp("desk")
    tune = next((ROOT / "data").glob("*.mid"))
    abc = next((ROOT / "data").glob("*.abc"))
    shutil.copy(tune, folder / "A.mid")
    shutil.copy(abc, folder / "B.abc")
    (folder / "my_midi_folder").mkdir()
    for i, song in enumerate(Pipeline.from_pretrained("melody").sample(80, bars=4)):  # enough for every split
        files.write(song, folder / "my_midi_folder" / f"tune-{i}.mid")
    shutil.copy(tune, folder / "my_midi_folder" / "one.mid")
    shutil.copy(tune, folder / "my_midi_folder" / "two.mid")
    return folder


def serves(words: list[str]) -> None:
    """It prints its address, answers there, and ends when told to."""
    command = [sys.executable, "-m", "seqvae", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert "studio" in httpx.get(url).text and httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        server.terminate()
    assert server.returncode == 0


@pytest.mark.skipif(not models(), reason="no model is embedded")
def test_every_command_of_the_readme_works(desk, monkeypatch):
    """In the README's own order, in one folder: later commands use what earlier ones made."""
    monkeypatch.chdir(desk)
    ran = 0
    for line in COMMANDS:
        for piece in re.sub(r"\s#.*", "", line).split(" && "):
            words = shlex.split(piece)
            if words[0] != "seqvae":
                continue
            ran += 1
            if words[1] == "serve":
                serves(words[1:])
                continue
            result = CliRunner().invoke(main, words[1:] + SHORT.get(words[1], []))
            assert result.exit_code == 0, f"{piece}: {result.output}"
    assert ran >= 10
    assert len(list((desk / "melodies").glob("*.png"))) == len(list((desk / "melodies").glob("*.mid"))) == 8
    assert (desk / "morph" / "journey.mid").exists()
