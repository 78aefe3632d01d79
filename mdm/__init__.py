"""Matryoshka Diffusion Models, reproduced: one network, several resolutions, trained progressively."""

from mdm import torchvision_cpu

# The package index ships torchvision built for CUDA; beside a CPU torch it needs two operator schemas
# before its first import. The finder costs nothing until then.
torchvision_cpu.install()

__version__ = "0.1.0"
