"""The autoencoder of Rombach et al. 2022, its weights named as in diffusers.AutoencoderKL (reference, section 24)."""

import torch.nn.functional as F
from torch import Tensor, nn

from mdm.config.latent import AutoencoderNetwork
from mdm.files.atomic import ArtifactError
from mdm.model.autoencoder import EPSILON, Autoencoder, Residual

# What older files call the parts of its attention.
FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
SHOWN = 3  # names of wrong weights in a message


class Attention(nn.Module):
    """Attention of one head over all places of a feature map, beside a way around it."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=EPSILON)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        places = self.group_norm(x).flatten(2).mT
        seen = F.scaled_dot_product_attention(self.to_q(places), self.to_k(places), self.to_v(places))
        return x + self.to_out[0](seen).mT.reshape(x.shape)


class Middle(nn.Module):
    """The bottom: a residual block, attention, a residual block."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width, groups)])
        self.resnets = nn.ModuleList([Residual(width, width, groups) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Halving(nn.Module):
    """A convolution of stride 2, with a row and a column of zeros at the end of the picture alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Doubling(nn.Module):
    """Every place four times, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Blocks(nn.Module):
    """The residual blocks of one resolution, and the change to the next."""

    def __init__(self, inputs: int, outputs: int, count: int, groups: int, change: str | None) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * (count - 1)
        self.resnets = nn.ModuleList([Residual(width, outputs, groups) for width in widths])
        self.change = change
        if change:
            kind = Halving if change == "downsamplers" else Doubling
            setattr(self, change, nn.ModuleList([kind(outputs)]))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        return getattr(self, self.change)[0](x) if self.change else x


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderNetwork) -> None:
        super().__init__()
        widths, groups, last = config.channels, config.norm_groups, len(config.channels) - 1
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList([
            Blocks(widths[max(i - 1, 0)], width, config.resnets, groups, "downsamplers" if i < last else None)
            for i, width in enumerate(widths)
        ])  # fmt: skip
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.codes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self, config: AutoencoderNetwork) -> None:
        super().__init__()
        widths, groups, last = config.channels[::-1], config.norm_groups, len(config.channels) - 1
        self.conv_in = nn.Conv2d(config.codes, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups)
        self.up_blocks = nn.ModuleList([
            Blocks(widths[max(i - 1, 0)], width, config.resnets + 1, groups, "upsamplers" if i < last else None)
            for i, width in enumerate(widths)
        ])  # fmt: skip
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(codes))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class KlAutoencoder(Autoencoder):
    """Convolutions that halve and double the picture, attention at the bottom only."""

    def __init__(self, config: AutoencoderNetwork) -> None:
        super().__init__(config)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.codes, 2 * config.codes, 1)
        self.post_quant_conv = nn.Conv2d(config.codes, config.codes, 1)

    def raw(self, pictures: Tensor) -> Tensor:
        """Mean and log-variance of the codes."""
        return self.quant_conv(self.encoder(pictures))

    def decode(self, codes: Tensor) -> Tensor:
        """Pictures of codes."""
        return self.decoder(self.post_quant_conv(codes))

    def hidden(self) -> list[Tensor]:
        """The weights of all residual blocks, of attention, and of what halves and doubles."""
        outside = ("conv_in", "conv_out", "quant_conv", "post_quant_conv")
        named = self.named_parameters()
        return [p for name, p in named if p.ndim > 1 and not any(part in outside for part in name.split("."))]


def as_now_named(state: dict[str, Tensor], network: Autoencoder, where: str) -> dict[str, Tensor]:
    """Weights of a file of diffusers.AutoencoderKL under today's names; a file of another shape is refused."""
    found = {}
    for name, tensor in state.items():
        parts = [FORMER.get(part, part) for part in name.split(".")]
        # Older files keep the maps of attention as convolutions of one pixel.
        attends = "attentions" in parts and tensor.ndim == 4
        found[".".join(parts)] = tensor[:, :, 0, 0] if attends else tensor
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in found.items()}
    if wrong := sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name)):
        listed = ", ".join(f"{n} {there.get(n, 'missing')} instead of {wanted.get(n, 'none')}" for n in wrong[:SHOWN])
        raise ArtifactError(
            f"{where} holds other weights than the network of the study: {len(wrong)} differ, e.g. {listed}; correct "
            "`network` (channels: block_out_channels, resnets: layers_per_block, codes: latent_channels, norm_groups: "
            "norm_num_groups), or name a file with the names of diffusers.AutoencoderKL"
        )
    return {name: tensor.float() for name, tensor in found.items()}
