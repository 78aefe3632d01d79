"""Learned balance of the loss over noise levels, one for each level of a nest (Karras et al. 2024)."""

import torch
from torch import Tensor, nn

FREQUENCIES = 16


class NoiseBalance(nn.Module):
    """u(ln sigma): how uncertain a level still is at a noise level; its loss l counts as l / exp(u) + u.

    At the optimum exp(u) is the mean loss there, so that every noise level of every level of the nest counts alike.
    """

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2 * FREQUENCIES, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # Half a period to eight over the noise levels in use, ln(sigma) / 4 from about -1.5 to 1.5.
        self.register_buffer("rates", torch.arange(1, FREQUENCIES + 1) * (torch.pi / 3), persistent=False)

    def forward(self, log_sigma: Tensor) -> Tensor:
        """ln(sigma) [B] -> u [B]."""
        # Under autocast u would have three digits, and exp(u) weighs the loss.
        with torch.autocast(log_sigma.device.type, enabled=False):
            angles = log_sigma.float()[:, None] / 4 * self.rates
            return self.head(torch.cat([angles.cos(), angles.sin()], dim=1))[:, 0]


def balances(network: nn.Module) -> list[NoiseBalance]:
    """The balances of a nest, highest resolution first; none if it learns none."""
    if not network.config.learned_balance:  # asked at every step, and a nest has hundreds of modules
        return []
    return [module for module in network.modules() if isinstance(module, NoiseBalance)]
