"""VP, VE and EDM beside the released code: answers, levels, losses and gradients; and in the project's own loss."""

from __future__ import annotations

import itertools

import pytest
import torch
from released_networks import weight_of
from test_songunet import assert_close, config_of, opened
from torch import Tensor

from mdm.config import DiffusionConfig, SampleConfig
from mdm.diffusion import loss, noise, path, schedule
from mdm.diffusion.preconditioning import EDM, VE, VP, Preconditioning, released_loss
from mdm.model.song import SongUNet

KINDS: dict[str, type[Preconditioning]] = {"vp": VP, "ve": VE, "edm": EDM}
CASES = [(kind, case) for kind in KINDS for case in opened(f"precond_{kind}")[1]["cases"]]
every_case = pytest.mark.parametrize(("kind", "case"), CASES)


def golden_network(kwargs: dict) -> SongUNet:
    network = SongUNet(config_of(kwargs)).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not name.endswith("resample_filter"):
                tensor.copy_(weight_of(name, tensor.shape))
    return network


class Golden:
    """One case: a preconditioned network with the golden weights, and what it was given."""

    def __init__(self, kind: str, case: str) -> None:
        arrays, meta = opened(f"precond_{kind}")
        self.meta, self.way = meta["cases"][case], KINDS[kind]()
        self.arrays = {k.removeprefix(f"{case}/"): torch.from_numpy(v) for k, v in arrays.items()}
        self.network = golden_network(self.meta["network"])

    def __getitem__(self, name: str) -> Tensor | None:
        return self.arrays.get(name)

    def loss_values(self) -> Tensor:
        given = (self[f"loss/{name}"] for name in ("images", "level_draw", "noise"))
        return self.way.loss_values(self.network, *given, self["labels"])


def test_all_cases_are_here() -> None:
    assert CASES == [("vp", "plain"), ("vp", "labels"), ("ve", "plain"), ("edm", "plain"), ("edm", "labels")]


@every_case
def test_clean_pictures_are_the_released_ones(kind: str, case: str) -> None:
    golden = Golden(kind, case)
    with torch.no_grad():
        assert_close(
            golden.way.denoise(golden.network, golden["x"], golden["sigma"], golden["labels"]), golden["denoised"]
        )
        # One level for the whole batch, in float64 as the sampler has it, is that level for each picture.
        one = golden["sigma"][0].double()
        alone = golden.way.denoise(golden.network, golden["x"].double(), one, golden["labels"])
    assert alone.dtype == torch.float32
    assert_close(alone[:1], golden["denoised"][:1])


@every_case
def test_losses_and_gradients_are_the_released_ones(kind: str, case: str) -> None:
    golden = Golden(kind, case)
    assert_close(golden.way.sigma(golden["loss/level_draw"]), golden["loss/sigma"])
    values = golden.loss_values()
    assert_close(values, golden["loss/values"])
    total = released_loss(values)
    assert_close(total, golden["loss/scalar"])
    total.backward()
    parameters = dict(golden.network.named_parameters())
    norms = torch.stack([parameters[key].grad.norm() for key in golden.meta["grad_keys"]])
    assert_close(norms, golden["loss/grad_norms"])


@every_case
def test_limits_are_the_released_attributes(kind: str, case: str) -> None:
    golden = Golden(kind, case)
    assert golden.way.sigma_min == golden.meta["sigma_min"] and golden.way.sigma_max == golden.meta["sigma_max"]


@pytest.mark.parametrize("case", ["plain", "labels"])
def test_time_and_sigma_of_vp(case: str) -> None:
    golden = Golden("vp", case)
    assert_close(golden.way.sigma_of_time(golden["times"]), golden["sigma_of_times"])
    assert_close(golden.way.time_of_sigma(golden["sigma"]), golden["times_of_sigma"])


@every_case
def test_the_projects_loss_times_the_number_of_values_is_the_released_one(kind: str, case: str) -> None:
    """training_loss is a mean over pixels; C*H*W times it is what the released code differentiates."""
    golden, config = Golden(kind, case), DiffusionConfig(parameterisation=kind)
    images, sigma, label = golden["loss/images"], golden["loss/sigma"], golden["labels"]

    def nest(pictures, told, text, mask, labels):
        return [golden.network(pictures[0], told, label)]

    table = schedule.levels(config, (images.shape[-1],))
    total, _ = loss.training_loss(nest, config, table, [images], sigma, [golden["loss/noise"]])
    assert_close(total * images[0].numel(), golden["loss/scalar"])
    total.backward()
    parameters = dict(golden.network.named_parameters())
    norms = torch.stack([parameters[key].grad.norm() for key in golden.meta["grad_keys"]])
    assert_close(norms * images[0].numel(), golden["loss/grad_norms"])


@pytest.mark.parametrize("kind", KINDS)
def test_weight_and_target_say_the_same_as_the_clean_picture(kind: str) -> None:
    way, generator = KINDS[kind](), torch.Generator().manual_seed(0)
    clean, epsilon, said = (torch.randn(6, 3, 4, 4, generator=generator).double() for _ in range(3))
    sigma = torch.tensor([0.02, 0.1, 0.5, 1, 5, 50]).double().view(-1, 1, 1, 1)
    answer = way.skip(sigma) * (clean + sigma * epsilon) + way.out(sigma) * said
    released = way.weight(sigma) * (answer - clean) ** 2
    torch.testing.assert_close((said - way.target(clean, epsilon, sigma)) ** 2, released, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_training_draws_uniform_levels_that_belong_to_the_image_counter(kind: str) -> None:
    config, way = DiffusionConfig(parameterisation=kind), KINDS[kind]()
    sigmas = noise.training_times(config, 3, range(4000))
    assert torch.equal(sigmas[5:9], noise.training_times(config, 3, range(5, 9)))
    draws = way.time_of_sigma(sigmas) if kind == "vp" else (sigmas / 0.02).log() / torch.tensor(5000.0).log()
    assert draws.mean().item() == pytest.approx(0.5, abs=0.02) and draws.std().item() == pytest.approx(
        12**-0.5, abs=0.01
    )
    spread = noise.spread_times(config, 8)
    assert len(set(spread.tolist())) == 8 and spread.min() > way.sigma_min and spread.max() < way.sigma_max


@pytest.mark.parametrize(("kind", "lowest"), [("vp", 0.002), ("ve", 0.02), ("edm", 0.002)])
def test_every_sampler_stays_within_the_limits_and_tells_the_networks_own_number(kind: str, lowest: float) -> None:
    config = DiffusionConfig(parameterisation=kind)
    moments = path.path(SampleConfig(sampler="heun", steps=18), config, schedule.levels(config, (8,)))
    sigmas = [((1 - m.gammas[-1]) / m.gammas[-1]).sqrt().item() for m in moments]
    assert sigmas[0] == pytest.approx(80) and sigmas[17] == pytest.approx(lowest) and moments[18].clean
    told = KINDS[kind]().told(torch.tensor(sigmas[:18]))
    assert [m.told for m in moments[:18]] == pytest.approx(told.tolist(), rel=2e-2 if kind == "vp" else 1e-5)
    assert [m.share for m in moments] == sorted((m.share for m in moments), reverse=True) and moments[0].share == 1


@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_settings_of_other_parameterisations_are_refused(kind: str) -> None:
    for settings in ({"sigma_data": 1.0}, {"log_sigma_mean": 0.0}, {"schedule": "linear"}, {"min_snr": 5}):
        with pytest.raises(ValueError, match=f"has no effect with parameterisation: {kind}"):
            DiffusionConfig(parameterisation=kind, **settings)


def test_other_constants_change_what_they_should() -> None:
    assert VP(beta_d=10.0).sigma_max < VP().sigma_max and VP(epsilon_t=1e-3).sigma_min > VP().sigma_min
    assert VP(steps=100).told(torch.tensor(1.0)) * 999 == pytest.approx(VP().told(torch.tensor(1.0)).item() * 99)
    levels = VE(sigma_min=0.1, sigma_max=10.0).sigma(torch.tensor([0.0, 0.5, 1.0]))
    assert levels.tolist() == pytest.approx([0.1, 1.0, 10.0])
    for a, b in itertools.pairwise([0.5, 1.0, 2.0]):
        assert EDM(sigma_data=a).out(torch.tensor(3.0)) < EDM(sigma_data=b).out(torch.tensor(3.0))
