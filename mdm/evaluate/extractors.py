"""The measuring networks of a protocol, each a function from pictures and captions to named arrays."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mdm.config import StudyError, WeightsConfig, nearest
from mdm.files.atomic import read_json

# uint8 pictures [B, R, R, 3], B captions -> arrays with B rows; the one named like the extractor is features.
Extractor = Callable[[np.ndarray, Sequence[str]], dict[str, np.ndarray]]


def load_extractors(
    named: Mapping[str, str | WeightsConfig], root: Path, device: str, resize: str = "clean",
    logits: bool = False,
) -> dict[str, Extractor]:  # fmt: skip
    """The extractors of a features recipe; each is loaded once and sees every picture once."""
    inception = partial(_inception, resize, logits)
    loaders = {"judge": _judge, "clip": _clip, "inception": inception, "sscd": _sscd, "dino": _dino, "video": _video}
    unknown = sorted(set(named) - set(loaders))
    if unknown:
        raise StudyError(f"no extractor is called '{unknown[0]}'; {nearest(unknown[0], loaders)}")
    if not named:
        raise StudyError("this protocol measures nothing; name a judge, a clip or inception weights in it")
    return {name: loaders[name](reference, root, device) for name, reference in named.items()}


def _judge(reference: str, root: Path, device: str) -> Extractor:
    from mdm.evaluate.judge_network import JudgeReader

    reader = JudgeReader(root / reference, device)

    def extract(pictures: np.ndarray, _captions: Sequence[str]) -> dict[str, np.ndarray]:
        answers, features = reader(pictures)
        return {"judge": features, **{f"judge.{key}": value for key, value in answers.items()}}

    return extract


def _clip(reference: str | WeightsConfig, root: Path, device: str) -> Extractor:
    from mdm.evaluate.clip_score import clip_scores, load_clip

    if isinstance(reference, str):  # a tiny CLIP of this study: its own manifest has the hash
        folder = root / reference
        reference = WeightsConfig(path=str(folder), sha256=read_json(folder / "manifest.json")["sha256"])
    scorer = load_clip(reference, device)

    def extract(pictures: np.ndarray, captions: Sequence[str]) -> dict[str, np.ndarray]:
        images = scorer.image_features(pictures)
        return {"clip": images, "clip.score": clip_scores(images, scorer.text_features(captions))}

    return extract


def _inception(resize: str, logits: bool, reference: WeightsConfig, _root: Path, device: str) -> Extractor:
    from mdm.evaluate.inception import load_inception

    network = load_inception(reference, device, resize)
    last = network.classifier if logits else None

    def extract(pictures: np.ndarray, _captions: Sequence[str]) -> dict[str, np.ndarray]:
        features = network(pictures)
        return {"inception": features} | ({} if last is None else {"inception.logits": features @ last.T})

    return extract


def _sscd(reference: WeightsConfig, _root: Path, device: str) -> Extractor:
    from mdm.evaluate.sscd import load_sscd

    network = load_sscd(reference, device)
    return lambda pictures, _captions: {"sscd": network(pictures)}


def _dino(reference: WeightsConfig, _root: Path, device: str) -> Extractor:
    from mdm.evaluate.dino import load_dino

    network = load_dino(reference, device)
    return lambda pictures, _captions: {"dino": network(pictures)}


def _video(reference: WeightsConfig, _root: Path, device: str) -> Extractor:
    from mdm.evaluate.video import load_video

    network = load_video(reference, device)
    return lambda clips, _captions: {"video": network(clips)}
