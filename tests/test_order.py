"""The import order of the house: enforced on every module's syntax, and tried on planted violations."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "seqvae"

# A module imports only what stands before it here; those of one package import each other without a cycle.
ORDER = (
    *("song", "harmony", "ensembles", "disk", "tunes", "scores", "files", "texts", "pictures", "codecs"),
    *("sources", "harvest", "attributes"),
    *("likelihood", "divergence", "objective", "latent", "prior"),
    *("networks", "model", "image", "decoding", "importance"),
    *("recipes", "corpus", "checkpoint", "metrics", "render", "gallery", "listening"),
    *("evaluation", "engine"),
    *("melodies", "sentences", "images", "pipeline", "train"),
    *("service", "client", "cli", "__main__"),
)
MATHEMATICS = {
    "likelihood",
    "divergence",
    "objective",
    "latent",
    "prior",
    "networks",
    "model",
    "image",
    "decoding",
    "importance",
}  # knows no music
TORCHLESS = {
    *ORDER[: ORDER.index("likelihood")],
    "corpus",
    "metrics",
    "render",
    "gallery",
    "listening",
}  # music, which knows no torch
HOMES = {  # where a library may be imported at all
    **dict.fromkeys(("click", "rich"), {"cli"}),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "prometheus_client", "ray"), {"service"}),
    "pydantic": {"service", "client"},
    "httpx": {"client"},
    # The command line knows the programmes of General MIDI by pretty_midi's names.
    **dict.fromkeys(
        ("symusic", "music21", "pretty_midi", "mido"), {"scores", "files", "attributes", "render", "cli"}
    ),
    **dict.fromkeys(("torch", "lightning_fabric", "safetensors", "tensorboard"), {*ORDER} - TORCHLESS),
}
# Imported when first needed, as each costs every command a fifth of a second or more.
LATE = {("files", "pretty_midi"), ("files", "seqvae.scores")}
LATE |= {("pictures", "python_avatars"), ("pictures", "resvg_py")}  # which not everybody has
EAGER = {*sys.stdlib_module_names, "click"}  # what the command line may import before a command runs


class Import(NamedTuple):
    module: str  # that imports, "" for the package itself, "codecs.base" for a module in one
    target: str  # "torch", "seqvae.codecs.base"
    names: tuple[str, ...]  # taken from the target
    line: int
    late: bool  # inside a function
    typing: bool  # for type checkers alone


def imports(module: str, source: str, known: set[str]) -> Iterator[Import]:
    """Every import of a module, `import_module("...")` too; a relative one has the target "."."""

    def visit(node: ast.AST, late: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, (), node.lineno, late, typing)
        elif isinstance(node, ast.ImportFrom):
            base = "." if node.level else node.module or ""
            taken = []
            for alias in node.names:
                if f"{base}.{alias.name}".removeprefix("seqvae.") in known and base.split(".")[0] == "seqvae":
                    yield Import(module, f"{base}.{alias.name}", (), node.lineno, late, typing)
                else:
                    taken.append(alias.name)
            if taken:
                yield Import(module, base, tuple(taken), node.lineno, late, typing)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
                yield Import(module, str(name), (), node.lineno, late, typing)
        inside = late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside, typing or checking)

    yield from visit(ast.parse(source), False, False)


def faults(found: Import) -> Iterator[str]:
    """What is wrong with one import, in words."""
    family, target = found.module.split(".")[0], found.target
    library, _, inner = target.partition(".")
    if target in ("", "."):
        yield "names what it imports in full, as text"
    if found.late and family != "cli" and (found.module, target) not in LATE:
        yield f"imports {target} inside a function"
    if library in HOMES and family not in HOMES[library]:
        yield f"has no business with {library}"
    if family == "cli" and not found.late and not found.typing:
        if library not in EAGER and target != "seqvae" and not inner.startswith("cli"):
            yield f"imports {target} before a command runs"
    if library != "seqvae":
        return
    if family == "":
        yield f"imports {target}, though everything imports the package itself"
    if not inner:
        return
    other = inner.split(".")[0]
    if other not in ORDER:
        yield f"imports {target}, which has no place in the order"
    elif family in ORDER and ORDER.index(other) > ORDER.index(family):
        yield f"imports {target}, which stands below it"
    if family in TORCHLESS and other in ORDER and other not in TORCHLESS:
        yield f"knows no torch, but {target} does"
    plain = inner == "codecs.base" and found.names == ("Stream",)
    if family in MATHEMATICS and other not in MATHEMATICS and not plain:
        yield f"is mathematics and imports {target}"


def violations(sources: dict[str, str]) -> list[str]:
    """A sentence for each breach of the rules by modules (name -> source)."""
    known, found, graph = set(sources), [], {}
    for module, source in sources.items():
        if module and module.split(".")[0] not in ORDER:
            found.append(f"{module} has no place in the order")
        every = list(imports(module, source, known))
        found += [f"{module}:{one.line} {fault}" for one in every for fault in faults(one)]
        graph[module] = {one.target.partition(".")[2] for one in every if one.target.startswith("seqvae.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as fault:
        found.append(f"imports go round: {' > '.join(fault.args[1])}")
    return found


def package() -> dict[str, str]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = path.read_text(encoding="utf-8")
    return found


def test_the_house_keeps_its_order() -> None:
    sources = package()
    assert {"", "song", "codecs.base", "model", "cli"} <= sources.keys()
    assert violations(sources) == []


def test_no_exception_outlives_its_need() -> None:
    sources = package()
    late = {
        (one.module, one.target)
        for name in sources
        for one in imports(name, sources[name], set(sources))
        if one.late
    }
    assert LATE <= late


def test_music_runs_without_torch() -> None:
    """What the syntax promises, at work: no library brings torch in by the back door either."""
    names = [f"seqvae.{name}" for name in package() if name and name.split(".")[0] in TORCHLESS]
    script = f"import importlib, sys; [importlib.import_module(name) for name in {names}]"
    script += "; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=PACKAGE.parent, check=True)


HOUSE = {
    "": '__version__ = "1"',
    "song": "import re\nimport numpy as np",
    "files": "import symusic\nfrom seqvae import __version__\nfrom seqvae.song import Song",
    "codecs.base": "from typing import NamedTuple",
    "codecs": "from seqvae.codecs.base import Stream",
    "objective": "import torch",
    "model": "from seqvae.codecs.base import Stream\nfrom seqvae.objective import Posterior",
    "checkpoint": "from seqvae import files, model\nfrom seqvae.codecs import Codec",
    "metrics": "",
    "metrics.music": "from seqvae.song import Song",
    "service": "import fastapi\nfrom seqvae.checkpoint import load",
    "cli.console": "import click\nif TYPE_CHECKING:\n    from rich.table import Table",
    "cli": "from seqvae.cli.console import bar\ndef main():\n    import torch\n    from seqvae import model",
    "__main__": "from seqvae.cli import main",
}


def test_a_house_in_order_has_no_faults() -> None:
    assert violations(HOUSE) == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("song", "from seqvae import codecs", "imports seqvae.codecs, which stands below it"),
        ("song", "import seqvae.codecs", "imports seqvae.codecs, which stands below it"),
        ("song", "if TYPE_CHECKING:\n    from seqvae.codecs import Codec", "which stands below it"),
        (
            "checkpoint",
            "from seqvae.cli.console import bar",
            "imports seqvae.cli.console, which stands below it",
        ),
        ("codecs.base", "from seqvae.codecs import CODECS", "imports go round: codecs"),
        ("song", "from seqvae.utils import helper", "imports seqvae.utils, which has no place in the order"),
        ("utils", "", "utils has no place in the order"),
        ("", "from seqvae.song import Song", "everything imports the package itself"),
        ("song", "import torch", "has no business with torch"),
        ("codecs.base", "from torch.nn import Module", "has no business with torch"),
        ("corpus", "from safetensors.torch import load", "has no business with safetensors"),
        ("metrics.music", "import torch", "has no business with torch"),
        ("corpus", "from seqvae.objective import Posterior", "knows no torch, but seqvae.objective does"),
        ("render", "from seqvae.checkpoint import load", "knows no torch, but seqvae.checkpoint does"),
        ("model", "from seqvae.song import Song", "is mathematics and imports seqvae.song"),
        ("model", "from seqvae.codecs import Codec", "is mathematics and imports seqvae.codecs"),
        (
            "model",
            "from seqvae.codecs.base import Codec, Stream",
            "is mathematics and imports seqvae.codecs.base",
        ),
        ("decoding", "from seqvae import files", "is mathematics and imports seqvae.files"),
        ("checkpoint", "import click", "has no business with click"),
        ("service", "from rich.table import Table", "has no business with rich"),
        ("cli", "def serve():\n    import fastapi", "has no business with fastapi"),
        ("service", "import httpx", "has no business with httpx"),
        ("client", "from fastapi import FastAPI", "has no business with fastapi"),
        ("service", "from seqvae.client import Client", "imports seqvae.client, which stands below it"),
        ("service", "def f():\n    import ray", "imports ray inside a function"),
        ("checkpoint", "import symusic", "has no business with symusic"),
        ("checkpoint", "def load():\n    import json", "imports json inside a function"),
        ("song", "class A:\n    def b(self):\n        from re import match", "imports re inside a function"),
        ("song", "f = lambda: __import__('re')", "imports re inside a function"),
        ("files", "def f():\n    importlib.import_module('music21')", "imports music21 inside a function"),
        ("song", "import importlib\nimportlib.import_module('torch')", "has no business with torch"),
        ("song", "import_module(name)", "names what it imports in full"),
        ("files", "from .song import Song", "names what it imports in full"),
        ("cli.console", "import torch", "imports torch before a command runs"),
        ("cli", "from rich.table import Table", "imports rich.table before a command runs"),
        ("cli", "from seqvae.song import Song", "imports seqvae.song before a command runs"),
    ],
)
def test_a_planted_violation_is_found(module: str, line: str, fault: str) -> None:
    found = violations(HOUSE | {module: f"{HOUSE.get(module, '')}\n{line}"})
    assert (
        len(found) == 1
        and fault in found[0]
        and found[0].startswith((f"{module}:", f"{module} ", "imports go"))
    )


def test_class_bodies_and_conditions_run_at_import() -> None:
    """They are not functions: an import there is no late one."""
    lines = "try:\n    import json\nexcept ImportError:\n    json = None\nclass A:\n    import math"
    assert violations(HOUSE | {"song": lines}) == []
