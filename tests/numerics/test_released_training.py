"""Steps of the released training loop beside ours: losses, rates, weights and averages, step by step."""

from __future__ import annotations

import math
import zlib

import pytest
import torch
import torch.nn.functional as F
from released_networks import weight_of
from test_songunet import config_of, opened
from torch import Tensor

from mdm.config import DiffusionConfig, TrainConfig
from mdm.diffusion import schedule
from mdm.diffusion.parameterisation import preconditioning
from mdm.diffusion.preconditioning import released_loss
from mdm.model.networks import build
from mdm.model.song import SongUNet
from mdm.train.example import Example
from mdm.train.optim import make_optimizers, rate_share, set_rates
from mdm.train.state import TrainingState, average_of
from mdm.train.step import training_step

ARRAYS, META = opened("memo_train")
CASES = list(META["cases"])
TOLERANCE = 1e-5
CONSTANT_BATCH, PICTURES, RAMP = 512, 50_000, 0.05  # of the released code's average


def settings(entry: dict) -> TrainConfig:
    """Our settings for the released loop's: durations in images, and the average's from its three factors."""
    loop, adam, batch = entry["loop"], entry["optimizer"], entry["batch"]
    # The released average keeps 0.5^(512 / half / data_ratio), whatever the batch: so many times its half-life.
    longer = loop["data_ratio"] * batch / CONSTANT_BATCH
    return TrainConfig(
        batch_images=batch, learning_rate=adam["lr"], betas=tuple(adam["betas"]), epsilon=adam["eps"],
        weight_decay=adam["weight_decay"], decay="coupled", warmup_images=loop["lr_rampup_kimg"] * 1000,
        images_counted="before-step", ema_halflife_images=loop["ema_halflife_kimg"] * 1000 * longer,
        ema_ramp=RAMP * longer, sanitize_gradients=True, clip_norm=None, condition_dropout=0.0,
    )  # fmt: skip


class Training:
    """A case: the network with the golden weights, and what each step is given."""

    def __init__(self, case: str, **changes: float) -> None:
        self.case, self.meta = case, META["cases"][case]
        self.diffusion = DiffusionConfig(parameterisation=self.meta["precond"].lower())
        self.config = TrainConfig(**settings(self.meta).model_dump() | changes)
        network = build(config_of(self.meta["network"]), seed=0)
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                if not name.endswith("resample_filter"):
                    tensor.copy_(weight_of(name, tensor.shape))
        self.network = network.train()
        self.state = TrainingState(
            network, average_of(network, self.config), make_optimizers(network, self.config, set())
        )
        self.gammas = schedule.levels(self.diffusion, network.config.resolutions)

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(ARRAYS[f"{self.case}/{name}"])

    def step(self, number: int) -> tuple[float, float]:
        """The released loss of a step, and its rate."""
        images = self["images"][number].float() / 127.5 - 1
        times = preconditioning(self.diffusion).sigma(self["level"][number])
        labels = self["labels"][number] if self.meta["network"]["label_dim"] else None
        example = Example([images], [self["noise"][number]], times, None, None, labels)
        share = rate_share(self.config, self.state.images, total=10**9)
        set_rates(self.state.optimizers, share)
        loss, _, _ = training_step(self.state, self.config, self.diffusion, self.gammas, example)
        return float(loss) * math.prod(images.shape[1:]), self.config.learning_rate * share

    def checks(self, tensors: dict[str, Tensor]) -> Tensor:
        """Two numbers for each weight, float64 [keys, 2]: its sum, and its product with numbers that its name makes."""
        found = []
        for key in self.meta["keys"]:
            seed = zlib.crc32(f"check/{key}".encode())
            z = torch.randn(tensors[key].shape, generator=torch.Generator().manual_seed(seed))
            weight = tensors[key].detach().double()
            found.append(torch.stack([weight.sum(), (weight * z.double()).sum()]))
        return torch.stack(found)


def assert_same(ours: Tensor, golden: Tensor) -> None:
    assert (ours - golden).abs().max() <= TOLERANCE * golden.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_every_step_is_the_released_one(case: str) -> None:
    training = Training(case)
    # Keys of the attention have a gradient of zero but for rounding, which Adam turns into steps of full size.
    kept = [place for place, key in enumerate(training.meta["keys"]) if not key.endswith("qkv.bias")]
    losses, rates = [], []
    for number in range(training.meta["steps"] + 1):
        net, ema = dict(training.network.named_parameters()), training.state.ema.state_dict()
        assert_same(training.checks(net)[kept], training["net_checks"][number][kept])
        assert_same(training.checks(ema)[kept], training["ema_checks"][number][kept])
        if number < training.meta["steps"]:
            loss, rate = training.step(number)
            losses.append(loss)
            rates.append(rate)
    assert rates[0] == 0 and rates == pytest.approx(training["lr"].tolist(), rel=1e-12)
    assert losses == pytest.approx(training["loss"].tolist(), rel=TOLERANCE)
    for name in ("map_layer0.weight", "dec.8x8_aux_conv.weight"):
        assert_same(net[name], training[f"net_final/{name}"])
        assert_same(ema[name], training[f"ema_final/{name}"])


def plain_loop(training: Training, decay: float, final: float) -> tuple[list[float], dict[str, Tensor]]:
    """The rules of the specification, section D, in a loop of their own: the losses, and the average at the end."""
    loop, adam, batch = (training.meta[key] for key in ("loop", "optimizer", "batch"))
    way, network = preconditioning(training.diffusion), SongUNet(training.network.config)
    network.load_state_dict(training.network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), adam["lr"], adam["betas"], adam["eps"], weight_decay=decay)
    average, losses = {name: p.detach().clone() for name, p in network.named_parameters()}, []
    count = training.meta["network"]["label_dim"]
    for number in range(training.meta["steps"]):
        before, images = number * batch, training["images"][number].float() / 127.5 - 1
        labels = F.one_hot(training["labels"][number], count).float() if count else None
        loss = released_loss(
            way.loss_values(network, images, training["level"][number], training["noise"][number], labels)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = adam["lr"] * min(before / (loop["lr_rampup_kimg"] * 1000), 1)
        optimizer.step()
        half = min(loop["ema_halflife_kimg"] * 1000, 0.05 * before)
        kept = final / 0.5 ** (batch / 500_000) * 0.5 ** (batch / max(half, 1e-8) / loop["data_ratio"])
        with torch.no_grad():
            average = {name: p.lerp(average[name], kept) for name, p in network.named_parameters()}
        losses.append(loss.item())
    return losses, average


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("decay", "final"), [(0.1, 0.9), (30.0, 0.0)])
def test_coupled_decay_and_constant_averages(case: str, decay: float, final: float) -> None:
    """What the golden file has not: decay that is added to the gradient of the summed loss, and mode4's average."""
    loop = META["cases"][case]["loop"]
    training = Training(
        case, weight_decay=decay, ema_beta=final, ema_halflife_images=500_000, ema_ramp=RAMP * loop["data_ratio"]
    )
    losses, average = plain_loop(training, decay, final)
    ours = [training.step(number)[0] for number in range(training.meta["steps"])]
    assert ours == pytest.approx(losses, rel=TOLERANCE)
    for name, tensor in training.state.ema.state_dict().items():
        if name in average and not name.endswith("qkv.bias"):
            assert_same(tensor, average[name])
