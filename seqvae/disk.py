"""Files that appear whole or not at all, and the place where many are made."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from seqvae.song import SeqvaeError


def write_atomic(path: Path, data: bytes) -> None:
    """The file is as before or holds all the data, also after a kill or a power failure. Raises OSError."""
    held = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(held, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(held, path)
    finally:
        with contextlib.suppress(OSError):  # as it is there only after a fault
            held.unlink()


@contextlib.contextmanager
def scaffold(out: Path) -> Iterator[Path]:
    """A folder below `out` for work in progress, gone when all is done.

    It stays to go on from after a kill or when the disk fails; a fault of the input takes everything with it
    that was not there before. Raises SeqvaeError for an OSError.
    """
    work = out / ".work"
    new = [folder for folder in (work, out, *out.parents) if not folder.exists()]
    try:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        shutil.rmtree(work, ignore_errors=True)
    except OSError as fault:
        raise SeqvaeError(f"the corpus cannot be written to {out}: {fault.strerror or fault}") from None
    except SeqvaeError:
        for folder in new:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder) if folder == work else folder.rmdir()
        raise
