"""The codecs of text: one step a word, or one a piece of a word that sentencepiece found in the corpus.

A vocabulary is learnt from a corpus (`learn`) and stays with the model as bytes, ``state``: of words a list,
one a line in UTF-8; of pieces sentencepiece's own model, which holds the normalisation it was trained with.
Symbols are the vocabulary's and, after them, END; there are no conditions.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
import sentencepiece

from seqvae.codecs.base import Encoded, Stream
from seqvae.song import SeqvaeError

UNKNOWN = "<unk>"
MOST_SYMBOLS = 32_000  # of an int16
MOST_STEPS = 1_000
LONGEST_TEXT = 100_000  # characters of a text that are looked at
LEARNT_FROM = 1_000_000  # texts, at most, that a vocabulary is learnt from
LEARNT_OF = 5 * MOST_STEPS  # characters of each: about what is ever spelt of one
NORMALISATION = "nmt_nfkc"  # sentencepiece's default: Unicode NFKC, runs of white space made one blank


class TextCodec:
    """A text of at most ``longest`` steps with END; longer ones are cut, and `cut` says so.

    A spelling says what `symbols` a text has and what `text` symbols make. Raises `SeqvaeError` for a
    vocabulary too large for int16 and a length out of range.
    """

    name = ""
    kind = "text"
    conditions: tuple[Stream, ...] = ()
    ruling = 0

    def __init__(self, size: int, state: bytes, longest: int) -> None:
        self.state, self.longest, self.end = state, longest, size
        self._last: tuple[str, list[int]] = "", []
        if not 0 < size < MOST_SYMBOLS:
            raise SeqvaeError(f"a vocabulary has 1 to {MOST_SYMBOLS - 1} symbols, not {size}")
        if not 2 <= longest <= MOST_STEPS:
            raise SeqvaeError(f"texts have at most 2 to {MOST_STEPS} steps, not {longest}")
        self.streams: tuple[Stream, ...] = (Stream("symbol", "word", size + 1),)

    def config(self) -> dict[str, int | str]:
        """``vocabulary`` is the hash of the state, without which no codec can be built."""
        digest = hashlib.sha256(self.state).hexdigest()
        return {"name": self.name, "longest": self.longest, "vocabulary": digest}

    def symbols(self, text: str) -> list[int]:
        raise NotImplementedError

    def text(self, symbols: list[int]) -> str:
        raise NotImplementedError

    def pieces(self, source: object) -> Iterator[tuple[int, str]]:
        """The text itself, at place 0. Raises `SeqvaeError` where it has no symbols, or is no text."""
        if not isinstance(source, str):
            raise SeqvaeError(f"the {self.name} codec spells text, not {type(source).__name__}")
        if not self._spelt(source):
            raise SeqvaeError("there is nothing in it to spell")
        yield 0, source

    def cut(self, raw: str) -> bool:
        """Whether the text is longer than this codec spells."""
        return len(raw) > LONGEST_TEXT or len(self._spelt(raw)) >= self.longest

    def _spelt(self, raw: str) -> list[int]:
        """The symbols of what is looked at of a text, kept for the next question about the same one."""
        text, symbols = self._last
        if text != raw:
            symbols = self.symbols(raw[:LONGEST_TEXT])
            self._last = raw, symbols
        return symbols

    def snap(self, raw: str) -> str:
        return self.decode(*self.encode(raw))

    def encode(self, raw: str) -> Encoded:
        """A cut text ends where what is left is spelt as the same symbols again."""
        symbols = self._spelt(raw)
        if len(symbols) >= self.longest:
            kept = self.longest - 1
            while (left := self.symbols(self.text(symbols[:kept]))) != symbols[:kept]:
                if len(left) < self.longest:  # spelt otherwise, but short enough: that spelling is stable
                    symbols, kept = left, len(left)
                else:
                    kept -= 1
            symbols = symbols[:kept]
        return Encoded(np.array([*symbols, self.end], np.int16)[:, None], np.zeros(0, np.int16))

    def decode(self, steps: np.ndarray, condition: np.ndarray) -> str:
        """Any integers become text: reading stops at END, and what is no symbol is left out."""
        read: list[int] = []
        for symbol in np.asarray(steps).reshape(-1).tolist():
            if symbol == self.end:
                break
            if 0 <= symbol < self.end:
                read.append(symbol)
        return self.text(read)

    def augment(
        self, steps: np.ndarray, lengths: np.ndarray, conditions: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return steps, conditions

    def fingerprint(self, steps: np.ndarray, condition: np.ndarray) -> bytes:
        return np.asarray(steps, np.int16).tobytes()


class WordsCodec(TextCodec):
    """Whatever stands between white space is a word; one that the vocabulary lacks is <unk>, its first."""

    name = "words"

    def __init__(self, state: bytes, longest: int = 100) -> None:
        self.words = state.decode("utf-8", "replace").split("\n")
        self.index = {word: i for i, word in enumerate(self.words)}
        whole = all(len(word.split()) == 1 for word in self.words)
        if self.words[0] != UNKNOWN or len(self.index) < len(self.words) or not whole:
            raise SeqvaeError(
                f"a vocabulary of words is a list of different words that begins with {UNKNOWN}"
            )
        super().__init__(len(self.words), state, longest)

    def symbols(self, text: str) -> list[int]:
        return [self.index.get(word, 0) for word in text.split()]

    def text(self, symbols: list[int]) -> str:
        return " ".join(self.words[symbol] for symbol in symbols)

    def moved(self, raw: str) -> int:
        """How many words become <unk>."""
        return sum(word not in self.index for word in raw[:LONGEST_TEXT].split()[: self.longest - 1])

    @classmethod
    def learn(cls, texts: Iterable[str], size: int, longest: int = 100) -> WordsCodec:
        """The ``size`` commonest words, <unk> among them; of equally common ones the first in order."""
        counts = Counter(word for text in islice(texts, LEARNT_FROM) for word in text[:LEARNT_OF].split())
        counts.pop(UNKNOWN, None)
        if not counts:
            raise SeqvaeError("there is no word to learn a vocabulary from")
        common = sorted(counts, key=lambda word: (-counts[word], word))[: size - 1]
        return cls("\n".join([UNKNOWN, *common]).encode(), longest)


class PiecesCodec(TextCodec):
    """Pieces of words by sentencepiece (Kudo & Richardson 2018); what has no piece is spelt byte by byte."""

    name = "pieces"

    def __init__(self, state: bytes, longest: int = 100) -> None:
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=state)
            size = self.processor.get_piece_size()
        except (RuntimeError, ValueError, TypeError) as fault:
            raise SeqvaeError(f"the vocabulary is no sentencepiece model: {fault}") from None
        super().__init__(size, state, longest)

    def symbols(self, text: str) -> list[int]:
        return self.processor.encode(text)

    def text(self, symbols: list[int]) -> str:
        return self.processor.decode(symbols)

    @classmethod
    def learn(
        cls, texts: Iterable[str], size: int, longest: int = 100, algorithm: str = "unigram"
    ) -> PiecesCodec:
        """``size`` pieces, or fewer where the texts hold no more; unigram (Kudo 2018) or bpe (Sennrich 2016).

        Raises `SeqvaeError` where nothing can be learnt.
        """
        model = io.BytesIO()
        texts = (text[:LEARNT_OF] for text in islice(texts, LEARNT_FROM))
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=texts, model_writer=model, model_type=algorithm, vocab_size=size,
                hard_vocab_limit=False, byte_fallback=True, normalization_rule_name=NORMALISATION,
                bos_id=-1, eos_id=-1, num_threads=1, minloglevel=2, max_sentence_length=4 * LEARNT_OF,
            )  # fmt: skip
        except (RuntimeError, ValueError) as fault:
            if least := re.search(r"required_chars\. \d+ vs (\d+)", str(fault)):
                raise SeqvaeError(f"these texts need {least[1]} pieces or more, not {size}") from None
            if "sentences_" in str(fault) or "all_chars_count" in str(fault):
                raise SeqvaeError("there is nothing to learn pieces from") from None
            raise SeqvaeError(f"sentencepiece learnt no vocabulary of {size} pieces: {fault}") from None
        return cls(model.getvalue(), longest)


LEARNT: dict[str, tuple[type[WordsCodec] | type[PiecesCodec], int]] = {  # with sizes where none is given
    "pieces": (PiecesCodec, 8_000),
    "words": (WordsCodec, 20_000),
}


@dataclass(frozen=True)
class Spelling:
    """Which codec is to be learnt from a corpus, before there is one; smaller corpora get what fits.

    Raises `SeqvaeError` for what no codec can be.
    """

    name: str = "pieces"
    size: int = 0  # of the vocabulary; 0: the codec's usual one
    longest: int = 100  # steps of a text with END
    algorithm: str = "unigram"  # of pieces: or "bpe"
    kind: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        if self.name not in LEARNT or self.algorithm not in ("unigram", "bpe"):
            raise SeqvaeError(f"vocabularies are of {' or '.join(LEARNT)}, pieces by unigram or bpe")
        object.__setattr__(self, "size", self.size or LEARNT[self.name][1])
        if not 1 < self.size < MOST_SYMBOLS or not 2 <= self.longest <= MOST_STEPS:
            sizes = f"2 to {MOST_SYMBOLS - 1} symbols and texts 2 to {MOST_STEPS} steps"
            raise SeqvaeError(f"vocabularies have {sizes}, not {self.size} and {self.longest}")

    def learn(self, texts: Iterable[str]) -> TextCodec:
        if self.name == "pieces":
            return PiecesCodec.learn(texts, self.size, self.longest, self.algorithm)
        return WordsCodec.learn(texts, self.size, self.longest)

    def codec(self, state: bytes) -> TextCodec:
        """The codec as it was learnt."""
        return LEARNT[self.name][0](state, self.longest)
