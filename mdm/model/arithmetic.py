"""What a network consists of, counted from its configuration without torch: weights and arithmetic of every layer."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, SongConfig
from mdm.config.sizes import Size
from mdm.config.song import Part

GIGA = 1e9
ROTARY_RATES = 16  # half of the channels of a head
BALANCE_FEATURES = 32  # of a noise level, from which a level learns the weight of its loss


@dataclass(frozen=True)
class Layer:
    """A layer with weights, or (without) the two products of an attention; `products` per picture or clip."""

    size: Size
    parameters: int = 0
    products: float = 0.0  # multiplications, each with its addition
    #: whether something before it learns, so that its input needs a gradient too
    after_weights: bool = True
    #: part of the way through the pictures, whose gradients pass also through levels that do not learn
    on_the_way: bool = True
    #: computed a second time if its level keeps no activations
    in_block: bool = False
    #: a filter that never learns, whose own gradient nobody asks for
    fixed: bool = False

    def training_factor(self, frozen: bool, recomputed: bool) -> int:
        """How often its products are computed in a step of training, forth and back."""
        forth = 1 + (recomputed and self.in_block)
        if self.fixed:
            return forth + (self.on_the_way and self.after_weights)
        if not self.parameters:
            return forth + (2 if self.on_the_way or not frozen else 1)
        if frozen:
            return forth + (self.on_the_way and self.after_weights)
        return forth + 1 + self.after_weights


def layers(model: ModelConfig | SongConfig, tokens: int = 0) -> Iterator[Layer]:
    """Every layer of a network that reads captions of so many positions."""
    if isinstance(model, SongConfig):
        yield from _song(model)
        return
    yield from _text(model, tokens)
    for place, level in enumerate(model.levels):
        yield from _Level(model, level, tokens).layers()
        if place:
            yield from _adapters(level, model.levels[place - 1])


def parameters(model: ModelConfig | SongConfig) -> int:
    return sum(layer.parameters for layer in layers(model))


def gigaflops(model: ModelConfig | SongConfig, tokens: int = 0) -> float:
    """One forward pass for one picture or clip; a multiplication and its addition count as two."""
    return sum(2 * layer.products for layer in layers(model, tokens)) / GIGA


def step_gigaflops(
    model: ModelConfig | SongConfig,
    diffusion: DiffusionConfig,
    tokens: int = 0,
    frozen_levels: int = 0,
    recompute: Collection[Size] = (),
) -> float:
    """One step of training per picture: forth and back, the shares of a mixed batch, frozen levels at the bottom."""
    shares = _shares(model, diffusion)
    frozen = set(model.resolutions[len(model.resolutions) - frozen_levels :])
    return sum(
        2 * layer.products * shares[layer.size] * layer.training_factor(layer.size in frozen, layer.size in recompute)
        for layer in layers(model, tokens)
    ) / GIGA  # fmt: skip


def _shares(model: ModelConfig | SongConfig, diffusion: DiffusionConfig) -> dict[Size, float]:
    """The part of a batch that goes through each level."""
    if diffusion.mixed_ratio is None:
        return dict.fromkeys(model.resolutions, 1.0)
    ratio = diffusion.mixed_ratio
    return {size: sum(ratio[: i + 1]) / sum(ratio) for i, size in enumerate(model.resolutions)}


def _linear(c_in: int, c_out: int) -> int:
    return c_in * c_out + c_out


def time_channels(model: ModelConfig) -> int:
    """Width of the time embedding, shared by all levels."""
    return model.time_channels or 4 * model.levels[0].channels[0]


def text_width(model: ModelConfig) -> int | None:
    """Width of the text that attention layers see."""
    return (model.text_projection or model.text_channels) if model.text_channels else None


def _text(model: ModelConfig, tokens: int) -> Iterator[Layer]:
    """What the innermost level does with the caption or the class, once for all levels."""
    size, width, time = model.levels[0].size, text_width(model), time_channels(model)
    if width:
        if model.text_projection:
            count = _linear(model.text_channels, width)
            yield Layer(size, count, tokens * model.text_channels * width, after_weights=False, on_the_way=False)
        for _ in range(model.text_layers):
            yield Layer(size, _transformer(width), 12 * width**2 * tokens, on_the_way=False)
            yield Layer(size, 0, 2 * tokens**2 * width, on_the_way=False)
        learnt = bool(model.text_projection or model.text_layers)
        yield Layer(size, width * time, width * time, after_weights=learnt, on_the_way=False)
    if model.classes:
        yield Layer(size, (model.classes + 1) * time, on_the_way=False)


def _transformer(width: int) -> int:
    """Weights of self-attention and the two-layer perceptron after it, with their normalisations."""
    attention = _linear(width, 3 * width) + _linear(width, width)
    return attention + _linear(width, 4 * width) + _linear(4 * width, width) + 4 * width


def _adapters(outer: LevelConfig, inner: LevelConfig) -> Iterator[Layer]:
    """Between the coarsest feature map of a level and the first of the one inside."""
    outside, inside = outer.channels[-1], inner.channels[0]
    pixels = inner.frames * inner.grid(0).resolution ** 2
    for c_in, c_out in ((outside, inside), (inside, outside)):
        yield Layer(outer.size, 9 * c_in * c_out + c_out, 9 * c_in * c_out * pixels)


class _Level:
    def __init__(self, model: ModelConfig, level: LevelConfig, tokens: int) -> None:
        self._model, self._level, self._tokens = model, level, tokens
        self._time, self._text = time_channels(model), text_width(model)

    def layers(self) -> Iterator[Layer]:
        level, first = self._level, self._level.channels[0]
        frames, side = level.grid(0)
        pixels, depth = frames * side**2, len(level.channels)
        yield from self._embedding()
        for _ in range(2 if self._model.upsamples else 1):  # an upsampler also sees the enlarged small picture
            yield self._conv(level.pixel_channels, first, pixels, after_weights=False)
        x, skips = first, [first]
        for i, width in enumerate(level.channels):
            for _ in range(level.resnets[i]):
                yield from self._block(i, x, width)
                x = width
            last = i == depth - 1
            if not last:
                yield self._resampling(width, i + 1)
            skips += [width] * (level.resnets[i] + (not last))
        if level.middle:
            yield from self._block(depth - 1, x, x, attention=1)
            yield from self._block(depth - 1, x, x, attention=0)
        for i, width in reversed(list(enumerate(level.channels))):
            for _ in range(level.resnets[i] + 1):
                yield from self._block(i, x + skips.pop(), width)
                x = width
            if i:
                yield self._resampling(width, i - 1)
        yield Layer(level.size, 2 * first)
        yield self._conv(first, level.pixel_channels, pixels)

    def _embedding(self) -> Iterator[Layer]:
        size, time = self._level.size, self._time
        once = _linear(time // 4, time), _linear(time, time)
        if self._model.time_conditioning:
            yield Layer(size, once[0], time // 4 * time, after_weights=False, on_the_way=False)
            yield Layer(size, once[1], time * time, on_the_way=False)
        if self._model.learned_balance:
            yield Layer(size, _linear(BALANCE_FEATURES, 1), BALANCE_FEATURES, after_weights=False, on_the_way=False)
        for _ in self._level.micro_conditioning:
            yield Layer(size, sum(once), on_the_way=False)
        if self._model.upsamples:
            yield Layer(size, once[0], time // 4 * time, after_weights=False, on_the_way=False)
            yield Layer(size, once[1], time * time, on_the_way=False)

    def _conv(self, c_in: int, c_out: int, pixels: int, **more: bool) -> Layer:
        return Layer(self._level.size, 9 * c_in * c_out + c_out, 9 * c_in * c_out * pixels, **more)

    def _resampling(self, width: int, to: int) -> Layer:
        """From one inner resolution to another; in time a convolution over the frames alone."""
        taps, grid = (9 if self._level.halves == "space" else 3), self._level.grid(to)
        weights = taps * width**2
        return Layer(self._level.size, weights + width, weights * grid.frames * grid.resolution**2)

    def _block(self, index: int, c_in: int, c_out: int, attention: int | None = None) -> Iterator[Layer]:
        """A residual block and the attention after it; the blocks in the middle say how many layers they have."""
        level, (frames, side) = self._level, self._level.grid(index)
        pixels = frames * side**2
        time = _linear(self._time, 2 * c_out)
        yield Layer(level.size, time, self._time * 2 * c_out, on_the_way=False, in_block=True)
        yield self._conv(c_in, c_out, pixels, in_block=True)
        yield self._conv(c_out, c_out, pixels, in_block=True)
        yield Layer(level.size, 2 * (c_in + c_out))
        if c_in != c_out:
            yield Layer(level.size, _linear(c_in, c_out), c_in * c_out * pixels, in_block=True)
        in_middle = attention is not None
        for _ in range(attention if in_middle else (level.attention or (0,) * 99)[index]):
            yield from self._attention(c_out, frames, side**2)
        if level.video and level.video.attention and not in_middle:
            for _ in range(level.video.attention[index]):
                yield from self._frame_attention(c_out, frames, side)

    def _attention(self, width: int, frames: int, pixels: int) -> Iterator[Layer]:
        size, text = self._level.size, self._text
        count = _linear(width, 3 * width) + _linear(width, width) + 2 * width
        yield Layer(size, count, 4 * width**2 * frames * pixels, in_block=True)
        yield Layer(size, 0, 2 * pixels**2 * width * frames, in_block=True)
        if text:
            count = _linear(text, 2 * width) + 2 * text
            yield Layer(size, count, self._tokens * text * 2 * width, on_the_way=False, in_block=True)
            yield Layer(size, 0, 2 * pixels * self._tokens * width * frames, on_the_way=False, in_block=True)
        if self._level.attention_ffn:
            count = _linear(width, 4 * width) + _linear(4 * width, width) + 2 * width
            yield Layer(size, count, 8 * width**2 * frames * pixels, in_block=True)

    def _frame_attention(self, width: int, frames: int, side: int) -> Iterator[Layer]:
        """Between the frames of a clip, at half their side."""
        size, few = self._level.size, (side // 2) ** 2
        rates = ROTARY_RATES if self._level.video and self._level.video.rotary else 0
        yield self._conv(width, width, few * frames, in_block=True)
        yield Layer(size, _transformer(width) + rates, 12 * width**2 * few * frames, in_block=True)
        yield Layer(size, 0, 2 * frames**2 * width * few, in_block=True)
        yield self._conv(width, width, side**2 * frames, in_block=True)


def _song(model: SongConfig) -> Iterator[Layer]:
    """Every layer of DDPM++ or NCSN++."""
    features, width = model.noise_features, model.embedding_width
    for count in filter(None, (model.classes, model.augment)):
        weights = features * count + (features if count == model.classes else 0)
        yield Layer(model.resolution, weights, features * count, after_weights=False, on_the_way=False)
    learnt = bool(model.classes or model.augment)
    yield Layer(model.resolution, _linear(features, width), features * width, learnt, on_the_way=False)
    yield Layer(model.resolution, _linear(width, width), width * width, on_the_way=False)
    for part in (*model.encoder_parts(), *model.decoder_parts()):
        yield from _song_part(model, part)


def _song_part(model: SongConfig, part: Part) -> Iterator[Layer]:
    size, pixels, (c_in, c_out) = model.resolution, part.side**2, (part.c_in, part.c_out)
    weights, taps = 9 * c_in * c_out, len(model.filter) ** 2
    if part.kind == "aux_norm":
        yield Layer(size, 2 * c_out)
    elif part.kind != "block":
        # Halved behind the convolution: that one sees all pixels of the picture, and a border where the filter has one.
        halved = part.kind == "aux_residual"
        seen = (2 * part.side + len(model.filter) - 2) ** 2 if halved else pixels
        yield Layer(size, weights + c_out, weights * seen, after_weights=c_in != 3)
        yield from [Layer(size, 0, taps * c_out * pixels, fixed=True)] * (halved and taps > 4)
    else:
        yield Layer(size, _linear(model.embedding_width, c_out), model.embedding_width * c_out, on_the_way=False,
                    in_block=True)  # fmt: skip
        yield Layer(size, weights + c_out, weights * pixels, in_block=True)
        yield Layer(size, 9 * c_out**2 + c_out, 9 * c_out**2 * pixels, in_block=True)
        yield Layer(size, 2 * (c_in + c_out))
        if c_in != c_out or part.resample:
            yield Layer(size, _linear(c_in, c_out), c_in * c_out * pixels, in_block=True)
        if part.resample and taps > 4:  # once for the convolution and once for the skip; [1, 1] needs no products
            few = pixels if part.resample == "down" else pixels // 4
            yield Layer(size, 0, 2 * taps * c_in * few, in_block=True, fixed=True)
        if part.attention:
            yield Layer(size, _linear(c_out, 3 * c_out) + _linear(c_out, c_out) + 2 * c_out, 4 * c_out**2 * pixels,
                        in_block=True)  # fmt: skip
            yield Layer(size, 0, 2 * pixels**2 * c_out, in_block=True)
