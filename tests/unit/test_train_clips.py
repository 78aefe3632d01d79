"""A study of clips: pictures first, then clips with pictures joining, from a folder of films to exported weights."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from test_clips import films
from test_train import NEVER, without_seconds, without_time

from mdm.config import StudyError
from mdm.config.recipe import StageRecipe
from mdm.config.sizes import Clip
from mdm.data.shards.shard import index_data, write_manifest, write_shard
from mdm.data.text.cache import embed
from mdm.files.artifact import read_recipe
from mdm.files.atomic import write_json
from mdm.files.weights import state_hash
from mdm.report.figures.training_curves import _run_lines
from mdm.study import study
from mdm.train.checkpoint import read_checkpoint
from mdm.train.example import training_examples
from mdm.train.export import export
from mdm.train.loop import train
from mdm.train.ranks import Ranks

FILMS = {"captions": "table.csv", "file_pattern": "{page_dir}/{videoid}.webp", "caption_column": "name",
         "num_images": 6, "resolution": 32, "frames": 4}  # fmt: skip


def content(folder):
    scenes = {"source": "scenes", "settings": {"num_images": 16, "resolution": 16, "seed": 3}}
    small = {"channels": [32], "resnets": [1], "attention": [1], "norm_groups": 8}
    clips = {"channels": [32, 32, 32], "resnets": [1, 1, 1], "norm_groups": 8, "video": {"attention": [1, 0, 0]}}
    joint = {"resolutions": ["4x8", 8], "num_images": 24, "stills": "scenes", "diffusion": {"mixed_ratio": [2, 1]}}
    return {
        "title": "Clips", "question": "?", "seeds": [0],
        "data": {
            "films": {"source": "clip-folder", "settings": {**FILMS, "path": str(folder)}},
            "scenes": scenes,
        },
        "text": {"tiny": {"name": "tiny-t5", "channels": 32, "settings": {"channels": 32}}},
        "base": {
            "data": "films", "validation": "films", "text": "tiny",
            "model": {"time_channels": 32, "levels": {8: small, "4x8": clips}},
            "train": {"batch_images": 6, "learning_rate": 1e-3, "ema_halflife_images": 24, "validate_images": 12},
            "stages": {"r8": {"resolutions": [8], "num_images": 12}, "c8": joint},
        },
    }  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """A function that writes the study with changes and loads it."""
    folder = films(tmp_path / "films")

    def write(**changes):
        path = tmp_path / "clips.yaml"
        path.write_text(yaml.safe_dump(content(folder), sort_keys=False))
        return study.load(str(path), changes)

    return write


def make(loaded, root):
    """Every artifact before training; returns the recipes of the stages."""
    for ref in loaded.of_kind("data", "text", "train"):
        write_json(root / ref / "recipe.json", loaded.recipe(ref).plain())
    for ref in loaded.of_kind("data"):
        recipe = root / ref / "recipe.json"
        index_data(recipe), write_shard(recipe, 0), write_manifest(recipe)
    for ref in loaded.of_kind("text"):
        embed(root / ref / "recipe.json")
    return [root / stage.artifact / "recipe.json" for stage in loaded.runs[0].stages]


def test_a_study_of_clips_trains_and_resumes(written, tmp_path):
    torch.set_num_threads(1)
    loaded = written()
    assert [stage.resolutions for stage in loaded.runs[0].stages] == [(8,), (8, Clip(4, 8))]
    pictures, clips = make(loaded, tmp_path / "results")
    train(pictures, pictures.parent / "final.ckpt", None, NEVER)
    export(pictures)

    final = clips.parent / "final.ckpt"
    train(clips, final, None, NEVER)
    once, history = without_time(read_checkpoint(final)[0]), (clips.parent / "progress/history.jsonl").read_text()
    export(clips)
    final.unlink()
    train(clips, clips.parent / "slice-12.ckpt", None, NEVER)
    train(clips, final, clips.parent / "slice-12.ckpt", NEVER)
    assert state_hash(without_time(read_checkpoint(final)[0])) == state_hash(once)
    assert without_seconds((clips.parent / "progress/history.jsonl").read_text()) == without_seconds(history)

    manifest = json.loads((clips.parent / "manifest.json").read_text())
    assert manifest["resolutions"] == ["4x8", 8] and set(manifest["skipped"]) == {"training", "stills", "validation"}
    lines = [json.loads(line) for line in history.splitlines()]
    assert set(lines[-1]["losses"]) == set(lines[-1]["validation"]) == {"4x8", "8"}
    drawn = _run_lines(loaded.runs[0], True, {s.artifact: lines for s in loaded.runs[0].stages[1:]} | {
        loaded.runs[0].stages[0].artifact: []}, True)  # fmt: skip
    assert {line.resolution for line in drawn} == {8, Clip(4, 8)}


def test_grids_of_clips_show_frames(written, tmp_path):
    torch.set_num_threads(1)
    loaded = written()
    pictures, clips = make(loaded, tmp_path / "results")
    train(pictures, pictures.parent / "final.ckpt", None, NEVER)
    export(pictures)
    train(clips, clips.parent / "final.ckpt", None, NEVER, preview_images=24)
    with Image.open(clips.parent / "progress" / "samples" / "000000000024.png") as grid:
        assert grid.size == (8 * 8, 5 * 8)  # eight captions; four frames of 8 px, and the picture inside
        pixels = np.asarray(grid)
    assert not np.array_equal(pixels[:8], pixels[8:16])


def test_a_joint_batch_has_clips_first_and_is_a_function_of_the_image_counter(written, tmp_path):
    loaded = written()
    _, clips = make(loaded, tmp_path / "results")
    recipe = read_recipe(clips, StageRecipe)
    examples = training_examples(clips, recipe, Ranks())
    for seen in (0, 6, 12, 6):
        example = examples.at(seen)
        film, picture = example.images
        assert film.shape == (4, 4, 3, 8, 8) and picture.shape == (6, 3, 8, 8)
        torch.testing.assert_close(picture[:4], film[:, 0])
        assert example.text.shape[0] == example.mask.shape[0] == 6 and len(example.noises[0]) == 6
        again = training_examples(clips, recipe, Ranks()).at(seen)
        assert all(torch.equal(a, b) for a, b in zip(example.images, again.images, strict=True))
        assert torch.equal(example.text, again.text)
    shown = np.concatenate([examples._loader._clips.ids(0, 12)])
    assert sorted(shown[:6].tolist()) == list(range(6)), "each epoch shows every clip once"


def test_processes_share_the_rows_of_a_joint_batch(written, tmp_path):
    loaded = written()
    _, clips = make(loaded, tmp_path / "results")
    recipe = read_recipe(clips, StageRecipe)
    whole = training_examples(clips, recipe, Ranks())
    shares = [training_examples(clips, recipe, Ranks(rank, 2)) for rank in range(2)]
    for seen in (0, 6, 12):
        wanted = whole.at(seen)
        for rank, share in enumerate(shares):
            part = share.at(seen)
            for found, all_rows in zip(part.inputs(), wanted.part(rank, 2).inputs(), strict=True):
                found, all_rows = (x if isinstance(x, list) else [x] for x in (found, all_rows))
                assert all(a is b is None or torch.equal(a, b) for a, b in zip(found, all_rows, strict=True))
    with pytest.raises(StudyError, match="4 of the 6 rows of a batch are clips, which 3 processes cannot share"):
        training_examples(clips, recipe, Ranks(0, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base.stages.c8.data": "scenes"}, r"level 4x8 needs clips of 4 frames.*data\.scenes has pictures"),
        ({"data.films.settings.frames": 6}, r"data\.films has clips of 6 frames"),
        ({"base.stages.c8.stills": "films"}, r"c8\.stills: data\.films has clips; name a data set of pictures"),
        ({"base.stages.c8.diffusion": {}}, "stills scenes have no place"),
        ({"base.stages.c8.diffusion.mixed_ratio": [1, 0]}, "stills scenes have no place"),
        (
            {"base.stages.c8.resources": {"gpus": 2}, "base.stages.c8.diffusion.mixed_ratio": [1, 1]},
            r"c8: 3 of the 6 rows of a batch are clips, which 2 processes cannot share evenly",
        ),
        ({"base.stages.r8.stills": "scenes"}, "no effect without a level of clips"),
        ({"base.stages.c8.resolutions": ["8x4x"]}, "resolutions"),
        ({"data.scenes.settings.resolution": 12}, "stored at 12 px"),
        (
            {"base.stages": {"r8": {"resolutions": [8], "num_images": 12}},
             "protocols": {"p": {"description": "d", "prompts": "films", "reference": "films", "num_images": 2,
                                 "num_reference": 2}}},
            r"protocols\.p\.reference: data\.films has clips; name a data set of pictures",
        ),
        (
            {"protocols": {"p": {"description": "d", "prompts": "scenes", "reference": "scenes", "num_images": 2,
                                 "num_reference": 2}}},
            r"protocols\.p\.reference: the level 4x8 needs clips of 4 frames, .* and data\.scenes has pictures",
        ),
        (
            {"protocols": {"p": {"description": "d", "prompts": "scenes", "reference": "films", "num_images": 2,
                                 "num_reference": 2, "spectrum": True}}},
            r"protocols\.p: metrics and spectrum are of pictures, and a run draws clips of 4x8; leave them out",
        ),
    ],
)  # fmt: skip
def test_studies_of_clips_that_cannot_be_are_refused(written, changes, message):
    with pytest.raises(StudyError, match=message):
        written(**changes)
