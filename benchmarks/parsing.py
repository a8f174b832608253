"""MIDI files read and spelt a second on one core: read, melody, every 2-bar window encoded.

    python benchmarks/parsing.py FOLDER

The naive version reads with pretty_midi and does nothing else. Best of 3 passes over the folder's .mid files.
"""

import sys
import time
from pathlib import Path

import pretty_midi

from seqvae import files
from seqvae.codecs import NotesCodec


def main() -> None:
    paths = sorted(Path(sys.argv[1]).rglob("*.mid"))
    codec, best = NotesCodec(), float("inf")
    for _ in range(3):
        windows, start = 0, time.process_time()
        for path in paths:
            for _, phrase in codec.pieces(files.read(path)):
                codec.encode(phrase)
                windows += 1
        best = min(best, time.process_time() - start)
    start = time.process_time()
    for path in paths[:50]:
        pretty_midi.PrettyMIDI(str(path))
    naive = (time.process_time() - start) / len(paths[:50])
    print(
        f"{len(paths)} files, {windows} windows: {len(paths) / best:.0f} files a second of CPU time, ", end=""
    )
    print(f"{naive * len(paths) / best:.1f} times the files pretty_midi alone parses")


if __name__ == "__main__":
    main()
