"""A finished autoencoder between pictures and codes of unit scale, always in float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from mdm.config.latent import AutoencoderNetwork
from mdm.files.atomic import ArtifactError
from mdm.files.weights import load_weights, read_meta, state_hash
from mdm.model.autoencoder import Autoencoder, SmallAutoencoder
from mdm.model.autoencoder_kl import KlAutoencoder

WEIGHTS = "weights.safetensors"
MEAN, DEVIATION = "codes.mean", "codes.deviation"  # of each channel, beside the weights of the network
PIXELS = 32 * 64**2  # encoded or decoded at the same time


def build(config: AutoencoderNetwork, seed: int = 0) -> Autoencoder:
    """The autoencoder of a configuration with fresh weights, on the CPU (or inside `torch.device("meta")`)."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return SmallAutoencoder(config) if config.network == "small" else KlAutoencoder(config)


class Coder:
    """Codes have mean 0 and deviation 1 in every channel over the pictures that the artifact was made from."""

    def __init__(self, network: Autoencoder, mean: Tensor, deviation: Tensor, weights_hash: str = "") -> None:
        self.network, self.config, self.weights_hash = network.eval(), network.config, weights_hash
        self._mean, self._deviation = (x.view(1, -1, 1, 1) for x in (mean, deviation))
        self._device = mean.device

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures [B,3,R,R] in [-1,1] -> mean and deviation of their codes [B,2,C,R/f,R/f]."""
        return self._in_parts(self._encoded, pictures, pictures[0, 0].numel())

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B,C,R/f,R/f] -> pictures [B,3,R,R] in [-1,1]."""
        return self._in_parts(self._decoded, codes, codes[0, 0].numel() * self.config.factor**2)

    def _encoded(self, pictures: Tensor) -> Tensor:
        mean, log_variance = self.network.moments(pictures)
        deviation = (log_variance / 2).exp() / self._deviation
        return torch.stack([(mean - self._mean) / self._deviation, deviation], dim=1)

    def _decoded(self, codes: Tensor) -> Tensor:
        return self.network.decode(codes * self._deviation + self._mean).clamp(-1, 1)

    @torch.no_grad()
    def _in_parts(self, work: Callable[[Tensor], Tensor], given: Tensor, pixels: int) -> Tensor:
        with exactly(self._device):
            parts = given.to(self._device, torch.float32).split(max(1, PIXELS // pixels))
            return torch.cat([work(part) for part in parts])


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Float32 as it is written: no autocast, and no products in TF32."""
    # Not torch.backends.cudnn.flags: what it is not told it switches off, cuDNN itself among it.
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    with torch.autocast(device.type, enabled=False):
        for place in places:
            place.allow_tf32 = False
        try:
            yield
        finally:
            for place, allowed in zip(places, before, strict=True):
                place.allow_tf32 = allowed


def open_coder(folder: Path, device: torch.device | None = None) -> Coder:
    """The coder of an autoencoder's artifact."""
    path = folder / WEIGHTS
    state = load_weights(path)
    weights_hash = state_hash(state)
    if not {MEAN, DEVIATION} <= state.keys():
        raise ArtifactError(f"{path} has no {MEAN} and {DEVIATION}, the scale of its codes; make the artifact again")
    network = build(AutoencoderNetwork.model_validate(read_meta(path)["network"]))
    place = device or torch.device("cpu")
    scale = [state.pop(name).to(place) for name in (MEAN, DEVIATION)]
    network.load_state_dict(state)
    return Coder(network.to(place), *scale, weights_hash)
