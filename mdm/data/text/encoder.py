"""Frozen text encoders: a tiny T5 that needs no download, and real T5 weights from a local folder."""

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from mdm.config import StudyError
from mdm.config.recipe import EncoderRecipe
from mdm.config.text import T5Settings, TinyT5Settings
from mdm.data.sources.scenes.language import vocabulary, words
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

# Position biases of the tiny encoder. T5 starts them near zero; random attention then averages over the whole
# caption and "red circle, blue square" has word for word the features of "blue circle, red square" (measured:
# relative difference 2e-7). So each head is made to look at one neighbour, the word before it first of all.
NEIGHBOURS = (-1, -2, 1, -3, 2, -4, 3, -5)
NEIGHBOUR_BIAS = 5.0
EOS, SPARE_IDS = 1, 256  # of the tiny encoder's own tokenizer; 0 is its padding


class Encoder:
    """Captions to features [B, S, D], zero where mask [B, S] is zero."""

    def __init__(
        self, model: nn.Module, tokenize: Callable[[str], list[int]], device: str, stored: torch.dtype = torch.float16
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.channels: int = model.config.d_model
        #: how a cache holds the features
        self.stored = stored
        self._tokenize, self._device = tokenize, device

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features float32 [B, S, D] times mask, and mask float32 [B, S]; S is the longest caption's."""
        rows = [self._tokenize(caption) for caption in captions]
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self._device)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        mask = (torch.arange(longest, device=self._device)[None] < lengths[:, None]).float()
        features = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        return features * mask[..., None], mask


class Unloaded:
    """An encoder that is loaded when the first captions come: where all is made already, no weights are read."""

    def __init__(self, recipe: EncoderRecipe, device: str) -> None:
        self._recipe, self._device = recipe, device
        self._loaded: Encoder | None = None
        self.channels, number = recipe.stored_as
        self.stored: torch.dtype = getattr(torch, number.removeprefix("torch."))

    @property
    def device(self) -> str | None:
        """Return where captions were encoded; None if there were none."""
        return self._device if self._loaded else None

    def encode(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        self._loaded = self._loaded or load(self._recipe, self._device)
        return self._loaded.encode(captions)


def load(recipe: EncoderRecipe, device: str = "cpu") -> Encoder:
    own = isinstance(recipe.settings, TinyT5Settings)
    encoder = _tiny(recipe.settings, device) if own else _pretrained(recipe.settings, device)
    if recipe.channels != encoder.channels:
        raise StudyError(
            f"encoder {recipe.name!r} has features of width {encoder.channels}, the study says channels: "
            f"{recipe.channels}; write channels: {encoder.channels}"
        )
    return encoder


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


def _tiny(settings: TinyT5Settings, device: str) -> Encoder:
    """Build the random encoder. Its last layer norm brings the features to a mean square of one."""
    from transformers import T5Config, T5EncoderModel

    tokenizer = WordTokenizer()
    config = T5Config(
        vocab_size=tokenizer.size, d_model=settings.channels, d_kv=settings.channels // settings.heads,
        d_ff=2 * settings.channels, num_layers=settings.layers, num_heads=settings.heads, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = T5EncoderModel(config)
    _fill(model, settings.seed)
    return Encoder(model, lambda text: tokenizer.ids(text, settings.max_tokens), device)


def _fill(model: nn.Module, seed: int) -> None:
    """Fill in random weights of our own making: the library's start may change between its versions."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if "layer_norm" in name:
                weight.fill_(1.0)
                continue
            weight.copy_(torch.randn(weight.shape, generator=generator) * _scale(name, weight.shape[-1]))
            if "relative_attention_bias" in name:
                _look_at_neighbours(weight)


def _scale(name: str, fan_in: int) -> float:
    if "shared" in name or "embed_tokens" in name or "relative_attention_bias" in name:
        return 1.0
    # T5 does not divide its scores by sqrt(d): small queries keep content from drowning the positions. Small outputs
    # keep every word recognisable among its neighbours: with gain 1 a 16 px network needs twice the images to draw
    # the colour it was asked for (51 % after 8,000 images, 72 % with this gain).
    quiet = name.endswith(("SelfAttention.q.weight", ".o.weight", ".wo.weight"))
    return (0.25 if quiet else 1.0) / math.sqrt(fan_in)


def _look_at_neighbours(bias: torch.Tensor) -> None:
    """Favour one offset per head; bias is [buckets, heads], its upper half is for keys after the query."""
    for head in range(bias.shape[1]):
        offset = NEIGHBOURS[head % len(NEIGHBOURS)]
        bias[abs(offset) + (bias.shape[0] // 2 if offset > 0 else 0), head] += NEIGHBOUR_BIAS


def _pretrained(settings: T5Settings, device: str) -> Encoder:
    """Load real weights. The library fills missing tensors at random without an error, so all is checked here."""
    from tokenizers import Tokenizer
    from transformers import T5EncoderModel

    folder = _checked_folder(settings)
    model, report = T5EncoderModel.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, use_safetensors=True,
        dtype=torch.bfloat16 if settings.precision == "bf16" else torch.float32,
    )  # fmt: skip
    # The input embedding is stored once, as `shared`; its second name is not a missing tensor.
    missing = [key for key in report["missing_keys"] if key != "encoder.embed_tokens.weight"]
    if missing or report["mismatched_keys"]:
        names = ", ".join(map(str, [*missing, *report["mismatched_keys"]][:5]))
        raise ArtifactError(f"{folder} lacks tensors of a T5 encoder or has them in other shapes: {names}")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(settings.max_tokens)
    return Encoder(model, lambda text: tokenizer.encode(text).ids, device, getattr(torch, settings.stored))


def _checked_folder(settings: T5Settings) -> Path:
    folder = Path(settings.path)
    if not folder.is_dir():
        raise ArtifactError(f"there is no folder {folder}: put the T5 weights there or correct `path` in the study")
    names = {path.name for path in folder.iterdir()}
    weights = [name for name in settings.sha256 if name.endswith(".safetensors")]
    for needed in ("config.json", "tokenizer.json"):
        if needed not in settings.sha256:
            named = ", ".join(settings.sha256) or "nothing"
            raise StudyError(f"encoder 't5': sha256 must name {needed}; it names {named}")
    if not weights:
        raise StudyError("encoder 't5': sha256 must name the weights (*.safetensors)")
    # Files that the library would read beside or instead of those.
    unnamed = [name for name in names if name.endswith((".safetensors", ".index.json")) and name not in settings.sha256]
    if unnamed:
        others = ", ".join(sorted(unnamed))
        raise StudyError(f"{folder} also has {others}; name them in sha256, or take them out of the folder")
    for name, expected in settings.sha256.items():
        if name not in names:
            raise ArtifactError(f"{folder} has no {name}; it has {', '.join(sorted(names))}")
        if (seen := sha256_file(folder / name)) != expected:
            raise ArtifactError(f"{folder / name} has sha256 {seen}, the study says {expected}; fetch it again")
    return folder
