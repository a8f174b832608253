"""The teachers' notebook, run as it stands by a kernel of its own."""

import base64
import io
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parent.parent
PICTURES = 6


def numbers(text: str) -> dict[str, list[float]]:
    """The rows of a printed table by their names."""
    rows = {line[:22].strip(): line[22:].split() for line in text.splitlines()}
    return {name: [float(cell) for cell in cells] for name, cells in rows.items() if name}


def test_the_notebook_tells_its_story(tmp_path: Path) -> None:
    """Each picture is drawn, and the figures printed say what the words beside them say."""
    shutil.copytree(ROOT / "data", tmp_path / "data")
    shutil.copytree(ROOT / "samples", tmp_path / "samples", ignore=shutil.ignore_patterns("*.mid", "*.png"))
    notebook = nbformat.read(tmp_path / "samples" / "essay.ipynb", 4)
    kept = [cell.source for cell in notebook.cells]
    place = {"metadata": {"path": tmp_path / "samples"}}
    # Coalesced, as a kernel may send what one cell prints in several parts:
    NotebookClient(notebook, timeout=240, resources=place, coalesce_streams=True).execute()
    outputs = [found for cell in notebook.cells for found in cell.get("outputs", ())]
    pictures = [found.data["image/png"] for found in outputs if "image/png" in found.get("data", {})]
    assert len(pictures) == PICTURES
    for picture in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("L")
        low, high = image.getextrema()
        assert min(image.size) > 80 and high - low > 150
    terms, far = (numbers(found.text) for found in outputs if found.get("name") == "stdout")
    alone, none, both = (terms[name] for name in ("reconstruction alone", "KL alone", "both"))
    assert none[0] < 0.05 < 1 < both[0] < alone[0] / 3
    assert alone[2] < both[2] < none[2] / 1.5  # squared errors
    assert max(far["both"], far["reconstruction alone"]) < far["pixels"]
    assert [cell.source for cell in notebook.cells] == kept
