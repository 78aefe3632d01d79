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
from mdm.evaluate.extractors import load_extractors
from mdm.evaluate.inception import SIDE, load_inception, tf1_resize
from mdm.evaluate.pictures import open_pictures
from mdm.files.atomic import read_json
from mdm.files.hashes import sha256_file

SMALL = {"resolution": 32, "num_images": 64, "batch_images": 32, "embedding": 16, "image_width": 4, "text_width": 32}


def weights_at(path: Path, file: Path | None = None, model: str | None = None, **more: str) -> WeightsConfig:
    """Weights as a study names them; `file` holds the bytes where the path is a folder."""
    return WeightsConfig(path=str(path), sha256=sha256_file(file or path), model=model, **more)


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


def test_a_file_must_say_which_activation_its_weights_were_trained_with(tmp_path: Path) -> None:
    """With the wrong one every score would be wrong and nothing would fail."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"x")
    for model in ("ViT-B-16", "ViT-B-32", "ViT-L-14"):
        with pytest.raises(StudyError, match=f"write model: {model}-quickgelu for OpenAI's .* or activation: gelu"):
            load_clip(weights_at(path, model=model))
    # Named either way it gets as far as the weights; an architecture with one form needs no word.
    for said in ({"model": "ViT-B-16", "activation": "gelu"}, {"model": "ViT-B-16-quickgelu"},
                 {"model": "convnext_base"}):  # fmt: skip
        with pytest.raises(Exception, match=r"(?i)header|deserializ|safetensors"):
            load_clip(weights_at(path, **said))
    with pytest.raises(ValueError, match="activation"):
        WeightsConfig(path=str(path), sha256=None, activation="relu")


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


def test_tensorflows_resize_of_two_pixels_by_hand() -> None:
    """Pixel i lies at 2 i / 299: up to the 150th it is between the two, from there on it is the second."""
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 1], picture[1, 0], picture[1, 1] = 100, 200, 60
    found = tf1_resize(picture)
    assert found.shape == (SIDE, SIDE, 3) and found.dtype == np.float32 and SIDE == 299
    place = np.minimum(np.arange(299) * 2 / 299, 1)
    x, y = place[None], place[:, None]
    wanted = 100 * x * (1 - y) + 200 * (1 - x) * y + 60 * x * y
    for channel in range(3):
        np.testing.assert_allclose(found[..., channel], wanted, atol=1e-3)
    assert found[0, 0, 0] == 0 and found[0, 100, 0] == pytest.approx(100 * 200 / 299) and found[298, 298, 0] == 60
    assert found[75, 50, 0] == pytest.approx(100 * (100 / 299) * (149 / 299) + 200 * (199 / 299) * (150 / 299)
                                             + 60 * (100 / 299) * (150 / 299), abs=1e-3)  # fmt: skip


def test_tensorflows_resize_of_one_and_of_as_many_and_of_more_pixels() -> None:
    assert (tf1_resize(np.full((1, 1, 3), 77, np.uint8)) == 77).all()
    same = random_pictures(1, 299)[0]
    np.testing.assert_array_equal(tf1_resize(same), same)
    large = random_pictures(1, 598)[0]  # without antialiasing every second pixel is left out
    np.testing.assert_array_equal(tf1_resize(large), large[::2, ::2])
    flat = tf1_resize(np.stack([np.full((7, 3), 10 * k, np.uint8) for k in range(5)]))  # 5 rows, 7 columns
    assert flat.shape == (299, 299, 3) and (np.ptp(flat, axis=1) == 0).all()
    assert flat[:, 0, 0] == pytest.approx(np.minimum(10 * np.arange(299) * 5 / 299, 40), abs=1e-3)


def test_inception_sees_what_the_protocol_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "inception.pt"
    network = Inceptionish()
    torch.jit.script(network).save(str(file))
    pixels = random_pictures(3, 24)
    clean, tf1 = (load_inception(weights_at(file), "cpu", resize)(pixels) for resize in ("clean", "tf1"))
    np.testing.assert_array_equal(clean, load_inception(weights_at(file))(pixels))
    assert np.abs(clean - tf1).max() > 0.05 * np.abs(clean).max()
    resized = np.stack([tf1_resize(picture) for picture in pixels]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network.layers((torch.from_numpy(resized) - 128) / 128).reshape(3, 2048)
    np.testing.assert_allclose(tf1, expected, rtol=1e-4, atol=1e-6)


def test_the_two_resizes_differ() -> None:
    from cleanfid.resize import build_resizer

    picture = random_pictures(1, 64)[0]
    difference = tf1_resize(picture) - build_resizer("clean")(picture)
    assert np.abs(difference).mean() > 5


class Classifying(Inceptionish):
    """As NVIDIA's file: a last layer beside the layers, whose bias no score uses."""

    def __init__(self) -> None:
        super().__init__()
        self.output = torch.nn.Linear(2048, 10)


def test_a_classifier_gives_logits_without_its_bias_if_asked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, pixels = Classifying(), random_pictures(2, 24)
    torch.jit.script(network).save(str(tmp_path / "whole.pt"))
    weights = {"inception": weights_at(tmp_path / "whole.pt")}
    found = load_extractors(weights, tmp_path, "cpu", "clean", True)["inception"](pixels, ["", ""])
    wanted = found["inception"] @ network.output.weight.detach().numpy().T
    np.testing.assert_allclose(found["inception.logits"], wanted, rtol=1e-4, atol=1e-5)
    plain = load_extractors(weights, tmp_path, "cpu")["inception"](pixels, ["", ""])
    assert set(plain) == {"inception"}
