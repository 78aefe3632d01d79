"""The networks there are: nested U-Nets, and DDPM++ and NCSN++, told apart by the key `family`."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from mdm.config.base import StudyError, parse
from mdm.config.network import ModelConfig
from mdm.config.song import SongConfig


def family(content: Any) -> str:
    """Which family a configuration is of; nested networks were there first, and say nothing."""
    said = content.get("family") if isinstance(content, dict) else getattr(content, "family", None)
    return "song" if said == "song" else "nested"


AnyModel = Annotated[Annotated[ModelConfig, Tag("nested")] | Annotated[SongConfig, Tag("song")], Discriminator(family)]


def parse_model(content: Any, where: str) -> ModelConfig | SongConfig:
    """The configuration of a network, of whichever family, as it stands in a file."""
    if not isinstance(content, dict):
        raise StudyError(f"{where} must hold the configuration of a network, not {type(content).__name__}")
    return parse(SongConfig, content, where) if family(content) == "song" else parse(ModelConfig, content, where)
