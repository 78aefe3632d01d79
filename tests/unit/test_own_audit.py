"""`mdm audit`: weights or pictures of one's own against a folder of pictures or a data set made here."""

import shutil

import numpy as np
import pytest
import torch
from evaluate_artifacts import network, put, random_pictures, ref, scenes, text
from PIL import Image

from mdm.cli import main
from mdm.config import StudyError
from mdm.data.batches.reader import Pictures
from mdm.evaluate.own_audit import Asked, audit_own, in_folder
from mdm.files.atomic import ArtifactError, read_json


def folder(path, pictures):
    path.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{number:03d}.png")
    return path


def asked(tmp_path, **changes):
    given = {"weights": None, "pictures": None, "against": None, "out": tmp_path / "out", "num_images": 256}
    return Asked(**given | changes)


def values(out):
    return {row["metric"]: row["value"] for row in read_json(out / "audit.json")["metrics"]}


def test_pictures_of_a_folder_against_those_of_another(tmp_path, capsys):
    training = random_pictures(30, 24, 1)
    drawn = random_pictures(10, 24, 2)
    drawn[:3] = training[5:8]
    wide = np.concatenate([training, training[:, :, :6]], axis=2)  # the middle square of these is another one
    against = folder(tmp_path / "training" / "inside", training)
    folder(tmp_path / "training" / "wide", wide)
    pictures = folder(tmp_path / "drawn", drawn)
    audit_own(asked(tmp_path, pictures=pictures, against=tmp_path / "training"))
    assert values(tmp_path / "out")["copied_24"] == 0.3
    worst = read_json(tmp_path / "out" / "audit.json")["levels"][0]["worst"]
    assert [pair["name"] for pair in worst[:3]] == [f"inside/{k:03d}.png" for k in (5, 6, 7)]
    assert (tmp_path / "out" / "worst.png").is_file() and "most like a copy: drawn picture 0" in capsys.readouterr().out
    assert in_folder(against, 12)[0].shape == (30, 12, 12, 3), "larger pictures are averaged"


def test_an_archive_against_a_data_set_by_the_command_line(tmp_path):
    data = scenes(tmp_path / "results", 32)
    training = in_folder(folder(tmp_path / "x", random_pictures(8, 16)), None)[0]
    np.savez(tmp_path / "drawn.npz", pictures=training)
    command = ["audit", "--pictures", str(tmp_path / "drawn.npz"), "--against", str(data.parent)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert values(tmp_path / "out")["copied_16"] == 0


def seven_taken(tmp_path):
    """A stage that takes the first seven of twenty scenes, and the data set."""
    torch.set_num_threads(1)
    results = tmp_path / "results"
    data = scenes(results, 20)
    fresh = network(results)
    train = put(
        results, "train", "r16", seed=0, model=read_json(fresh)["model"], diffusion={"steps": 50}, data=ref(data),
        text=ref(text(results, data)), take=7,
    )  # fmt: skip
    shutil.copy(fresh.with_name("weights.safetensors"), train.parent)
    return train, data


def test_weights_draw_the_captions_that_they_were_trained_on(tmp_path):
    train, _ = seven_taken(tmp_path)
    audit_own(asked(tmp_path, weights=train.with_name("weights.safetensors"), num_images=5))
    found = read_json(tmp_path / "out" / "audit.json")
    assert [level["level"] for level in found["levels"]] == [16, 8] and found["levels"][0]["drawn"] == 5
    assert found["levels"][0]["known"] == 7, "those that it was trained on"


def test_more_may_be_drawn_than_there_are_training_pictures_and_no_others_are_asked_for(tmp_path, monkeypatch):
    train, data = seven_taken(tmp_path)
    wanted = []

    def paint(_painter, ids, captions, _classes):
        wanted.extend(captions)
        return {16: random_pictures(len(ids), 16)}

    monkeypatch.setattr("mdm.evaluate.painter.Painter.paint", paint)
    audit_own(asked(tmp_path, weights=train.with_name("weights.safetensors"), num_images=24))
    known = [Pictures(data.parent).caption(number) for number in range(7)]
    assert wanted == (known * 4)[:24]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({}, StudyError, "write mdm audit WEIGHTS.safetensors --against FOLDER"),
        ({"weights": "w", "pictures": "p"}, StudyError, "weights, which draw pictures, or at pictures"),
        ({"pictures": "few"}, StudyError, "--pictures needs --against"),
        ({"pictures": "few", "against": "many"}, ArtifactError, "few holds 2 x 16 x 16 x 3 values; .* 4 pictures"),
        ({"pictures": "many", "against": "empty"}, ArtifactError, "empty holds no picture"),
        ({"pictures": "many", "against": "nowhere"}, ArtifactError, "nowhere is no folder"),
        ({"pictures": "many", "against": "small"}, ArtifactError, "000.png has 8 px, and pictures of 16 px"),
        ({"pictures": "broken", "against": "many"}, ArtifactError, "000.png: it is not a picture.*mend or remove"),
        ({"weights": "many/000.png", "against": "many"}, ArtifactError, "of others draw pictures by yourself"),
        ({"pictures": "odd.npz", "against": "many"}, ArtifactError, "odd.npz holds a, b; an archive of drawn"),
    ],
)
def test_what_cannot_be_audited_is_refused(tmp_path, changes, error, message):
    folder(tmp_path / "few", random_pictures(2, 16))
    folder(tmp_path / "many", random_pictures(6, 16))
    folder(tmp_path / "small", random_pictures(6, 8))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "000.png").write_bytes(b"no picture")
    np.savez(tmp_path / "odd.npz", a=np.zeros(3), b=np.zeros(3))
    given = {key: tmp_path / value for key, value in changes.items()}
    with pytest.raises(error, match=message):
        audit_own(asked(tmp_path, **given))


def test_a_recipe_names_its_own_pictures(tmp_path, capsys):
    assert main(["audit", str(tmp_path / "recipe.json"), "--against", str(tmp_path)]) == 2
    assert "leave out --against and --pictures" in capsys.readouterr().err
