"""Weights and arithmetic of an autoencoder, counted from its configuration without torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from mdm.config.latent import AutoencoderNetwork

GIGA = 1e9
STEP = 3  # passes of a step of training: forth, and back for features and for weights


@dataclass(frozen=True)
class Layer:
    """A layer by its weights and the products it takes per picture; `half`: encoder or decoder."""

    half: str
    parameters: int
    products: int


def parameters(config: AutoencoderNetwork, half: str | None = None) -> int:
    """Return the weights of the encoder, the decoder, or both."""
    return sum(layer.parameters for layer in layers(config) if half in (None, layer.half))


def gigaflops(config: AutoencoderNetwork, half: str) -> float:
    """Return the arithmetic of encoding or decoding one picture; a product and its sum are two operations."""
    return 2 * sum(layer.products for layer in layers(config) if layer.half == half) / GIGA


def step_gigaflops(config: AutoencoderNetwork) -> float:
    """Return the arithmetic of a step of training, per picture."""
    return STEP * (gigaflops(config, "encoder") + gigaflops(config, "decoder"))


def layers(config: AutoencoderNetwork) -> Iterator[Layer]:
    """Yield every layer, in the order of the way through the network."""
    halves = (_small_halves if config.network == "small" else _kl_halves)(config)
    for half, parts in halves.items():
        for weights, products in parts:
            yield Layer(half, weights, products)


Part = tuple[int, int]  # weights and products


def _conv(inputs: int, outputs: int, kernel: int, places: int) -> Part:
    return outputs * (inputs * kernel**2 + 1), inputs * outputs * kernel**2 * places


def _norm(width: int) -> Part:
    return 2 * width, 0


def _residual(inputs: int, outputs: int, places: int) -> Iterator[Part]:
    yield from (_norm(inputs), _conv(inputs, outputs, 3, places), _norm(outputs), _conv(outputs, outputs, 3, places))
    if inputs != outputs:
        yield _conv(inputs, outputs, 1, places)


def _small_halves(config: AutoencoderNetwork) -> dict[str, list[Part]]:
    width, folded, places = config.channels[0], 3 * config.factor**2, config.grid**2

    def blocks(count: int) -> list[Part]:
        return [part for _ in range(count) for part in _residual(width, width, places)]

    ways_in, ways_out = _conv(folded, width, 3, places), _conv(width, folded, 3, places)
    into, out_of = _conv(width, 2 * config.codes, 1, places), _conv(config.codes, width, 3, places)
    return {
        "encoder": [ways_in, *blocks(config.resnets), into],
        "decoder": [out_of, *blocks(config.resnets + 1), ways_out],
    }


def _middle(width: int, places: int) -> Iterator[Part]:
    yield from _residual(width, width, places)
    yield _norm(width)
    yield from (_conv(width, width, 1, places) for _ in range(4))
    yield 0, 2 * places**2 * width
    yield from _residual(width, width, places)


def _kl_halves(config: AutoencoderNetwork) -> dict[str, list[Part]]:
    channels, codes, grid = config.channels, config.codes, config.grid**2
    return {
        "encoder": [
            _conv(3, channels[0], 3, config.resolution**2), *_kl_down(config), *_middle(channels[-1], grid),
            _norm(channels[-1]), _conv(channels[-1], 2 * codes, 3, grid), _conv(2 * codes, 2 * codes, 1, grid),
        ],
        "decoder": [
            _conv(codes, codes, 1, grid), _conv(codes, channels[-1], 3, grid), *_middle(channels[-1], grid),
            *_kl_up(config), _norm(channels[0]), _conv(channels[0], 3, 3, config.resolution**2),
        ],
    }  # fmt: skip


def _kl_down(config: AutoencoderNetwork) -> Iterator[Part]:
    before = config.channels[0]
    for index, width in enumerate(config.channels):
        side = config.resolution >> index
        for _ in range(config.resnets):
            yield from _residual(before, width, side**2)
            before = width
        if index < len(config.channels) - 1:
            yield _conv(width, width, 3, (side // 2) ** 2)


def _kl_up(config: AutoencoderNetwork) -> Iterator[Part]:
    before = config.channels[-1]
    for index, width in reversed(list(enumerate(config.channels))):
        side = config.resolution >> index
        for _ in range(config.resnets + 1):
            yield from _residual(before, width, side**2)
            before = width
        if index:
            yield _conv(width, width, 3, (2 * side) ** 2)
