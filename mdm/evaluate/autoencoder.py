"""An autoencoder as an artifact: trained or taken from a file, its codes brought to unit scale, and measured."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mdm.config import StudyError, WeightsConfig
from mdm.config.latent import SCALED_OVER, AutoencoderFit, AutoencoderNetwork
from mdm.config.recipe_latent import AutoencoderRecipe
from mdm.data.batches.reader import Pictures
from mdm.data.rows import to_bytes
from mdm.evaluate.fit_saves import forget
from mdm.evaluate.fitting import fit
from mdm.evaluate.intervals import mean_with_interval, metric
from mdm.evaluate.judge_network import to_input
from mdm.evaluate.progress import progress
from mdm.files.artifact import Making
from mdm.files.atomic import ArtifactError, write_json
from mdm.files.hashes import sha256_file
from mdm.files.weights import load_weights, save_weights
from mdm.model.autoencoder import Autoencoder, divergence
from mdm.model.autoencoder_arithmetic import step_gigaflops
from mdm.model.autoencoder_kl import as_now_named
from mdm.model.coder import DEVIATION, MEAN, WEIGHTS, Coder, build, exactly

KEPT_BYTES = 2 * 2**30  # of training pictures held in memory; those of larger sets are read each time
BATCH = 32
PEAK = 255.0


def train_autoencoder(recipe_path: str | Path) -> None:
    """Train or load, measure scale on `data` and reconstructions on `test`; write weights, numbers and manifest."""
    making = Making(recipe_path, AutoencoderRecipe)
    recipe, folder = making.recipe, making.folder
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures = Reading(making.root / recipe.data, recipe.network.resolution)
    network, loss = _network(recipe, pictures, device, folder)
    mean, deviation = scale(network, pictures, device)
    coder = Coder(network, mean.to(device), deviation.to(device))
    metrics = measured(coder, Reading(making.root / recipe.test, recipe.network.resolution), device)
    state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    state |= {MEAN: mean, DEVIATION: deviation}
    save_weights(folder / WEIGHTS, state, {"network": recipe.network.model_dump(mode="json")})
    scaled = {"mean": mean.tolist(), "deviation": deviation.tolist(), "pictures": min(len(pictures), SCALED_OVER)}
    write_json(folder / "autoencoder.json", {"metrics": metrics, "test": recipe.test, "codes": scaled})
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    parameters = sum(p.numel() for p in network.parameters())
    # Of its own training alone; what a file of weights cost is not known.
    cost = recipe.fit and {"gigaflops": round(recipe.fit.num_images * step_gigaflops(recipe.network), 3)}
    forget(folder)
    making.finish(
        {"loss": loss, "parameters": parameters, "sha256": sha256_file(folder / WEIGHTS), **(cost or {})}, name
    )


class Reading:
    """Pictures of a data set by number, averaged to a side; kept in memory where they all fit."""

    def __init__(self, folder: Path, side: int) -> None:
        self._pictures, self._side = Pictures(folder), side
        if self._pictures.frames:
            raise ArtifactError(f"{folder} has clips; an autoencoder is trained on pictures")
        fits = len(self._pictures) * side**2 * 3 <= KEPT_BYTES
        self._kept: dict[int, np.ndarray] | None = {} if fits else None

    def __len__(self) -> int:
        return len(self._pictures)

    def at(self, numbers: Sequence[int]) -> Tensor:
        """Pictures [B,3,R,R] in [-1,1]."""
        return to_input(np.stack([self._one(number) for number in numbers]), self._side)

    def _one(self, number: int) -> np.ndarray:
        if self._kept is None:
            return self._pictures.image(number, self._side)
        if number not in self._kept:
            self._kept[number] = self._pictures.image(number, self._side)
        return self._kept[number]


def _network(
    recipe: AutoencoderRecipe, pictures: Reading, device: torch.device, folder: Path
) -> tuple[Autoencoder, float | None]:
    """The trained network and its last loss, or the given one."""
    if recipe.weights:
        return given(recipe.weights, recipe.network).to(device), None
    network = build(recipe.network, recipe.fit.seed).to(device, memory_format=torch.channels_last)
    return network, fit_autoencoder(network, pictures, recipe.fit, device, folder)


def given(weights: WeightsConfig, config: AutoencoderNetwork) -> Autoencoder:
    """The network of a file of diffusers.AutoencoderKL, once the file is the one that the study names."""
    path = Path(weights.path)
    if not path.is_file():
        raise StudyError(f"{path}: there is no such file; put the autoencoder's weights there, or correct the path")
    if (seen := sha256_file(path)) != weights.sha256:
        raise StudyError(f"{path}: its sha256 is {seen}, the study says {weights.sha256}; it is another file")
    network = build(config)
    network.load_state_dict(as_now_named(load_weights(path), network, str(path)))
    return network


def fit_autoencoder(
    network: Autoencoder, pictures: Reading, settings: AutoencoderFit, device: torch.device, folder: Path | None = None
) -> float:
    """Train from the seed: the same pictures and settings give the same weights. Returns the last loss.

    With a folder, a killed training goes on where it was saved there.
    """

    def loss_of(indices: Tensor, noise: torch.Generator) -> Tensor:
        clean = pictures.at(indices.tolist()).to(device, memory_format=torch.channels_last)
        mean, log_variance = network.moments(clean)
        drawn = torch.randn(mean.shape, generator=noise).to(device)
        return reconstruction_loss(network.decode(mean + (log_variance / 2).exp() * drawn), clean, settings) + (
            settings.kl * divergence(mean, log_variance).mean() / clean[0, 0].numel()
        )

    return fit("autoencoder", network, network.hidden(), loss_of, len(pictures), settings, folder)


def reconstruction_loss(found: Tensor, clean: Tensor, settings: AutoencoderFit) -> Tensor:
    """Absolute and squared error, means over all values, with their weights."""
    return settings.l1 * F.l1_loss(found, clean) + settings.mse * F.mse_loss(found, clean)


@torch.no_grad()
def scale(network: Autoencoder, pictures: Reading, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation [C] of each channel of the drawn codes, over all pictures or some, in float64.

    Some are spread over the whole set: the first ones of a set in the order of its classes are of a few classes.
    """
    network.eval()
    count = min(len(pictures), SCALED_OVER)
    sums = torch.zeros(3, network.config.codes, dtype=torch.float64)
    with progress("scale of codes", count) as bar, exactly(device):
        for start in range(0, count, BATCH):
            numbers = [place * len(pictures) // count for place in range(start, min(start + BATCH, count))]
            mean, log_variance = (x.double().cpu() for x in network.moments(pictures.at(numbers).to(device)))
            # The square of a drawn code is on average that of its mean and its variance.
            parts = (torch.ones_like(mean), mean, mean.square() + log_variance.exp())
            sums += torch.stack([part.sum(dim=(0, 2, 3)) for part in parts])
            bar.update(len(numbers))
    mean = sums[1] / sums[0]
    return mean.float(), (sums[2] / sums[0] - mean.square()).sqrt().float()


def measured(coder: Coder, pictures: Reading, device: torch.device) -> list[dict[str, Any]]:
    """PSNR of reconstructions as bytes, and the rate of their codes, each the mean over pictures."""
    signal, rate = [], []
    with progress("reconstructions", len(pictures)) as bar:
        for start in range(0, len(pictures), BATCH):
            numbers = range(start, min(start + BATCH, len(pictures)))
            clean = pictures.at(numbers)
            found = to_bytes(coder.decode(coder.encode(clean)[:, 0])).astype(np.float64)
            errors = np.square(found - to_bytes(clean)).mean(axis=(1, 2, 3))
            signal += [psnr(error) for error in errors]
            with torch.no_grad(), exactly(device):
                rate += (divergence(*coder.network.moments(clean.to(device))) / math.log(2)).tolist()
            bar.update(len(numbers))
    rows = {"autoencoder_psnr": np.array(signal), "autoencoder_bits": np.array(rate)}
    return [metric(name, *mean_with_interval(values), len(values)) for name, values in rows.items()]


def psnr(error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of bytes; that of one level in one value at most."""
    return 10 * math.log10(PEAK**2 / max(error, 1e-6))
