"""CLIP score with open_clip: the same code for the tiny model of a laptop study and for published weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdm.config import StudyError, WeightsConfig
from mdm.evaluate.weights import verified

FOLDER_FILES = ("open_clip_config.json", "open_clip_model.safetensors")


class ClipScorer:
    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, device: str) -> None:
        self._model, self._preprocess, self._tokenizer = model.to(device).eval(), preprocess, tokenizer
        self._device = device

    def image_features(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 pictures [B, H, W, 3] -> unit vectors [B, D]."""
        import torch
        from PIL import Image

        with torch.inference_mode():
            batch = torch.stack([self._preprocess(Image.fromarray(picture)) for picture in pictures])
            return self._model.encode_image(batch.to(self._device), normalize=True).float().cpu().numpy()

    def text_features(self, captions: Sequence[str]) -> np.ndarray:
        """B captions -> unit vectors [B, D]; captions beyond the model's context are cut, as CLIP does."""
        import torch

        with torch.inference_mode():
            tokens = self._tokenizer(list(captions)).to(self._device)
            return self._model.encode_text(tokens, normalize=True).float().cpu().numpy()


def load_clip(weights: WeightsConfig, device: str = "cpu") -> ClipScorer:
    """Load an open_clip folder, or a file of the named architecture."""
    path = Path(weights.path).expanduser()
    folder = path.is_dir()
    verified(path / FOLDER_FILES[1] if folder else path, weights.sha256, "clip")
    name = f"local-dir:{path.resolve()}" if folder else weights.model
    if not name:
        raise StudyError(f"clip: {path} is a file of weights; write model: its open_clip architecture, e.g. ViT-B-16")
    import open_clip

    if not folder:
        _check_architecture(weights)
    # Without require_pretrained open_clip only warns about weights that did not load and scores with noise.
    model, _, preprocess = open_clip.create_model_and_transforms(
        name, pretrained=None if folder else str(path), require_pretrained=True
    )
    return ClipScorer(model, preprocess, open_clip.get_tokenizer(name), device)


def _check_architecture(weights: WeightsConfig) -> None:
    """Refuse unknown names, and names that leave open which activation the weights were trained with.

    OpenAI's need QuickGELU. open_clip sees to that for weights it downloads, not for a file, where nothing would fail
    and every score would be wrong; and a file does not say whose it is.
    """
    import open_clip

    name, known = weights.model, open_clip.list_models()
    if name not in known:
        raise StudyError(f"clip: open_clip knows no architecture {name!r}; open_clip.list_models() has the names")
    quick = f"{name}-quickgelu"
    if quick in known and weights.activation != "gelu":
        raise StudyError(
            f"clip: {weights.path} is a file of {name}, which may need either activation; write model: {quick} for "
            "OpenAI's weights, or activation: gelu for those that were trained with GELU (such as LAION's)"
        )


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """100 * max(0, cosine) for each pair of unit vectors [N, D] -> [N]."""
    return 100 * np.einsum("nd,nd->n", images, texts, dtype=np.float64).clip(min=0)
