"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path


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
