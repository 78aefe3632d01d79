"""Networks as configurations: the three published text-to-image ones (461, 477 and 481 million parameters), and
one for the paper's video model, which was never published."""

from mdm.config import LevelConfig, ModelConfig, SongConfig, StudyError, VideoConfig, nearest
from mdm.config.families import parse_model
from mdm.files.atomic import read_json


def _level_64() -> LevelConfig:
    return LevelConfig(
        resolution=64, channels=(256, 512, 768), resnets=(2, 2, 2), attention=(0, 1, 5), middle=True,
        micro_conditioning={"scale": 64},
    )  # fmt: skip


def _outer(
    resolution: int, channels: tuple[int, ...], normalize_input: bool, video: VideoConfig | None = None
) -> LevelConfig:
    return LevelConfig(
        resolution=resolution, channels=channels, resnets=(2, 2, 1), attention=(0, 0, 0), attention_ffn=False,
        normalize_input=normalize_input, micro_conditioning={"scale": resolution}, video=video,
    )  # fmt: skip


def _model(*levels: LevelConfig) -> ModelConfig:
    # 2048 is the width of FLAN-T5 XL; the released attention sees the padding.
    return ModelConfig(levels=levels, time_channels=1024, text_channels=2048, text_projection=2048, mask_text=False)


def released_64() -> ModelConfig:
    return _model(_level_64())


def released_256() -> ModelConfig:
    return _model(_level_64(), _outer(256, (64, 128, 256), normalize_input=False))


def released_1024() -> ModelConfig:
    """1024 px around 256 px around 64 px; only here does the 256 px level normalise its input."""
    return _model(
        _level_64(),
        _outer(256, (64, 128, 256), normalize_input=True),
        _outer(1024, (32, 32, 64), normalize_input=False),
    )


def paper_video() -> ModelConfig:
    """16 frames of 256 px around 16 frames of 64 px around a picture of 64 px.

    The paper gives these levels and "added attention layers for time"; widths, depths and where time is attended to
    are ours. The picture level is the released one, so that its weights can be grown into this network.
    """
    clip = LevelConfig(
        resolution=64, channels=(64, 128, 128, 256, 256), resnets=(1, 1, 1, 1, 1), attention_ffn=False,
        micro_conditioning={"scale": 64}, video=VideoConfig(frames=16, attention=(1, 1, 1, 1, 0), rotary=True),
    )  # fmt: skip
    large = VideoConfig(frames=16, halves="space")
    return _model(_level_64(), clip, _outer(256, (64, 128, 256), normalize_input=False, video=large))


PRESETS = {
    "released-64": released_64, "released-256": released_256, "released-1024": released_1024,
    "paper-video": paper_video,
}  # fmt: skip


def named(name: str) -> ModelConfig | SongConfig:
    """A configuration by the name of a preset, or from the recipe.json or model.json of a trained stage."""
    if name in PRESETS:
        return PRESETS[name]()
    if not name.endswith(".json"):
        raise StudyError(f"no preset is called '{name}'; {nearest(name, PRESETS)}; or give a recipe.json or model.json")
    content = read_json(name)
    if not isinstance(content, dict):
        raise StudyError(f"{name} must hold a recipe or a model's configuration, not {type(content).__name__}")
    if "kind" in content and "model" not in content:
        raise StudyError(f"{name} is a recipe of kind {content['kind']}, which has no model; give one of kind train")
    return parse_model(content.get("model", content), name)
