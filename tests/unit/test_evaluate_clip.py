"""CLIP and Inception: one code path for tiny and published weights, and no score from the wrong ones.

The only test file that imports open_clip and clean-fid (ten seconds); refusals come first, without them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_artifacts import put, random_pictures, ref, scenes

from mdm.config import StudyError, WeightsConfig
from mdm.config.instruments import ClipSettings
from mdm.evaluate.clip_model import fit_clip, save_clip, train_clip
from mdm.evaluate.clip_score import FOLDER_FILES, ClipScorer, clip_scores, load_clip
from mdm.evaluate.inception import load_inception
from mdm.evaluate.pictures import open_pictures
from mdm.files.atomic import read_json
from mdm.files.hashes import sha256_file

SMALL = {"resolution": 32, "num_images": 64, "batch_images": 32, "embedding": 16, "image_width": 4, "text_width": 32}


def weights_at(path: Path, file: Path | None = None, model: str | None = None) -> WeightsConfig:
    """Weights as a study names them; `file` holds the bytes where the path is a folder."""
    return WeightsConfig(path=str(path), sha256=sha256_file(file or path), model=model)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP's recipe, trained for two steps."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    data, test = scenes(results, 64, 32), scenes(results, 40, 32, seed=1)
    recipe = put(results, "clip", "clip", data=ref(data), test=ref(test), settings=SMALL)
    train_clip(recipe)
    return recipe


@pytest.fixture(scope="module")
def scorer(trained: Path) -> ClipScorer:
    folder = trained.parent
    return load_clip(weights_at(folder, folder / FOLDER_FILES[1]))


@pytest.mark.parametrize("load", [load_clip, load_inception])
def test_missing_and_wrong_weights_are_refused_before_torch(load, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(StudyError, match=r"no weights at .*weights.pt; nothing is downloaded"):
        load(WeightsConfig(path=str(path), sha256="0" * 64, model="ViT-B-16"))
    path.write_bytes(b"not these")
    with pytest.raises(StudyError, match=r"SHA-256 is [0-9a-f]{64}, the study says 0{64}"):
        load(WeightsConfig(path=str(path), sha256="0" * 64, model="ViT-B-16"))
    with pytest.raises(StudyError, match=r"has no sha256 in the study file; write sha256: [0-9a-f]{64}"):
        load(WeightsConfig(path=str(path), sha256=None, model="ViT-B-16"))


def test_refusal_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mdm.config import WeightsConfig\nfrom mdm.evaluate import clip_score, inception\n"
        "for load in (clip_score.load_clip, inception.load_inception):\n"
        f"    try: load(WeightsConfig(path={str(tmp_path / 'x.pt')!r}, sha256='0' * 64))\n"
        "    except ValueError: pass\n"
        "print(sorted({'torch', 'open_clip', 'cleanfid'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_of_weights_needs_a_known_architecture(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"x")
    with pytest.raises(StudyError, match="write model: its open_clip architecture"):
        load_clip(weights_at(path))
    with pytest.raises(StudyError, match="open_clip knows no architecture 'ViT-B-61'"):
        load_clip(weights_at(path, model="ViT-B-61"))


def test_folder_loads_as_the_model_that_was_trained(trained: Path, tmp_path: Path) -> None:
    import open_clip

    settings = ClipSettings(**SMALL)
    pictures = open_pictures(trained.parents[2] / read_json(trained)["data"])
    model, _ = fit_clip(pictures, settings)
    save_clip(tmp_path, model, settings)
    assert sha256_file(tmp_path / FOLDER_FILES[1]) == sha256_file(trained.parent / FOLDER_FILES[1])
    loaded = load_clip(weights_at(tmp_path, tmp_path / FOLDER_FILES[1]))
    pixels = pictures.all()[:3]
    with torch.inference_mode():
        batch = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 127.5 - 1).float()
        expected = model.encode_image(batch, normalize=True)
        tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a red circle"])
        words = model.encode_text(tokens, normalize=True)
    np.testing.assert_allclose(loaded.image_features(pixels), expected, atol=1e-5)
    np.testing.assert_allclose(loaded.text_features(["a red circle"]), words, atol=1e-6)


def test_weights_in_a_file_load_by_architecture(trained: Path, tmp_path: Path, scorer: ClipScorer) -> None:
    import open_clip

    config = json.loads((trained.parent / FOLDER_FILES[0]).read_text())["model_cfg"]
    (tmp_path / "tiny-test-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    weights = trained.parent / FOLDER_FILES[1]
    named = load_clip(weights_at(weights, model="tiny-test-clip"))
    np.testing.assert_array_equal(named.text_features(["two stars"]), scorer.text_features(["two stars"]))


def test_scores_are_cosines_and_batches_do_not_matter(scorer: ClipScorer) -> None:
    pixels, captions = random_pictures(5, 32), ["a red circle", "two stars", "", "x" * 500, "a"]
    images, texts = scorer.image_features(pixels), scorer.text_features(captions)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(scorer.image_features(pixels[2:4]), images[2:4], atol=1e-5)
    scores = clip_scores(images, texts)
    expected = [max(0.0, 100 * float(np.dot(i, t))) for i, t in zip(images, texts, strict=True)]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert clip_scores(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])).tolist() == [0.0]


def test_manifest_has_retrieval_on_real_pictures(trained: Path) -> None:
    manifest = read_json(trained.with_name("manifest.json"))
    (row,) = manifest["metrics"]
    assert (row["metric"], row["n"]) == ("clip_retrieval_100", 40)
    assert manifest["sha256"] == sha256_file(trained.parent / FOLDER_FILES[1])


class Inceptionish(torch.nn.Module):
    """What clean-fid expects of its file: `layers` that give 2048 features from 299 px."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 9, 16), torch.nn.AdaptiveAvgPool2d(16))


def test_inception_is_cleanfids_own_path(tmp_path: Path) -> None:
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.wrappers import build_resizer

    torch.manual_seed(0)
    file = tmp_path / "named-as-you-like.pt"
    torch.jit.script(Inceptionish()).save(str(file))
    pixels = random_pictures(4, 24)
    extract = load_inception(weights_at(file))
    features = extract(pixels)
    assert features.shape == (4, 2048)
    np.testing.assert_allclose(extract(pixels[1:3]), features[1:3], rtol=1e-5)
    (tmp_path / "inception-2015-12-05.pt").symlink_to(file)
    theirs = InceptionV3W(str(tmp_path), download=False)
    resized = np.stack([build_resizer("clean")(picture) for picture in pixels]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        np.testing.assert_allclose(features, theirs(torch.from_numpy(resized.copy())), rtol=1e-6)


def test_inception_may_be_wrapped_once(tmp_path: Path) -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

    torch.manual_seed(0)
    network, pixels = Inceptionish(), random_pictures(2, 24)
    found = []
    for name, module in {"plain": network, "wrapped": Wrapped(network)}.items():
        torch.jit.script(module).save(str(tmp_path / name))
        found.append(load_inception(weights_at(tmp_path / name))(pixels))
    np.testing.assert_array_equal(*found)
    torch.jit.script(torch.nn.Identity()).save(str(tmp_path / "other"))
    with pytest.raises(StudyError, match="it has no layers"):
        load_inception(weights_at(tmp_path / "other"))
