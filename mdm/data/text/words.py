"""The embedded encoder's tokenizer: the words of the scenes, and spare ids for every other word."""

import hashlib
from functools import cached_property

from mdm.data.sources.scenes.language import vocabulary, words

PAD, EOS = 0, 1
SPARE_IDS = 256


class WordTokenizer:
    """Words to ids. Any prompt works: unknown words are hashed into the spare ids."""

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(sorted({*vocabulary(), ",", "."}), start=2)}

    @property
    def size(self) -> int:
        """Return the number of ids: padding, end, known words, spares."""
        return 2 + len(self._ids) + SPARE_IDS

    def ids(self, text: str, max_tokens: int) -> list[int]:
        """Return the ids of a text, cut to max_tokens, ended by EOS."""
        return [self._id(word) for word in words(text)[: max_tokens - 1]] + [EOS]

    def _id(self, word: str) -> int:
        if word in self._ids:
            return self._ids[word]
        spare = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % SPARE_IDS
        return 2 + len(self._ids) + spare
