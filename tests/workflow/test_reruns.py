"""What runs again after a change: exactly what the change reaches."""

import json
import re
import shutil

import pytest
from repository import snakemake

pytestmark = pytest.mark.slow
REPORT = {"write_report": 1, "write_ablation_report": 2, "publish": 3}


def planned(folder, *arguments):
    """Rules of a dry run with their counts (targets left out)."""
    done = snakemake(folder, "-n", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return {}
    table = text.split("Job stats:")[1].split("total")[0]
    found = dict(re.findall(r"^(\w[\w-]*)\s+(\d+)\s*$", table, re.M))
    return {rule: int(count) for rule, count in found.items() if rule != "all"}


@pytest.fixture
def edit(finished):
    """Change files of the finished study for one test; content and times are put back."""
    before = {}

    def _edit(name, old, new):
        path = finished / name
        before.setdefault(path, (path.read_bytes(), path.stat()))
        text = path.read_text()
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new, 1))

    yield _edit
    import os

    for path, (content, stat) in before.items():
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


STUDY = "config/studies/quick.yaml"


def test_nothing_changed(finished):
    assert planned(finished) == {}


def test_a_title_reruns_only_the_report(finished, edit):
    edit(STUDY, "title: Matryoshka Diffusion, the two-minute check", "title: Another title")
    assert planned(finished) == REPORT


@pytest.mark.parametrize("words", ["title: Guidance", "question: What does classifier-free guidance buy and cost?"])
def test_the_words_of_an_ablation_rerun_only_the_report(finished, edit, words):
    edit(STUDY, words, words + " Really")
    assert planned(finished) == REPORT


def test_the_code_of_a_figure_reruns_that_figure_and_the_report(finished, edit):
    edit("mdm/report/figures/guidance.py", "import", "import  ")
    assert planned(finished) == {"draw_figure": 1, "write_report": 1, "publish": 1}


def test_other_slices_retrain_nothing(finished, edit):
    edit(STUDY, "slice_images: 256", "slice_images: 128")
    assert planned(finished) == REPORT


def test_the_code_of_intervals_reruns_all_results_and_no_training(finished, edit):
    edit("mdm/report/quantity.py", "import", "import  ")
    rules = planned(finished)
    assert rules.keys() == {"collect_metrics", "make_tables", "draw_figure", "arrange_samples", "judge_claims", *REPORT}


def test_a_space_in_a_rule_trains_nothing(finished, edit):
    edit("workflow/rules/train.smk", "exec python -m mdm", "exec  python -m mdm")
    assert planned(finished) == {}


def test_an_added_ablation_runs_exactly_its_stages(finished, edit):
    entry = """  longer:
    {title: t, question: q, group: training, set: {stages.r32.num_images: 512}}

claims:"""
    edit(STUDY, "claims:", entry)
    rules = planned(finished)
    expected = {
        "train_last_slice": 1, "export_weights": 1, "draw_samples": 1, "extract_features": 1, "score": 1,
        "write_recipe": 4,
    }  # fmt: skip
    assert expected.items() <= rules.items()
    assert not {"train_judge", "train_clip", "make_shards", "embed_text", "train_slice"} & set(rules)


def test_a_snapshot_asked_for_too_late_is_trained_in_a_folder_of_its_own(finished, edit):
    edit(STUDY, "snapshots: [128]", "snapshots: [64, 128]")
    expected = {"train_again": 1, "take_snapshot": 1, "draw_samples": 1, "extract_features": 1, "score": 1,
                "write_recipe": 4}  # fmt: skip
    rules = planned(finished)
    assert expected.items() <= rules.items()
    assert {"train_slice", "train_last_slice", "export_weights", "make_shards", "embed_text"}.isdisjoint(rules)


def test_a_snapshot_made_so_has_the_weights_that_training_had_there(finished, tmp_path):
    """Where the training's own copy is lost, Snakemake repeats it up to there; then nothing is left to do."""
    folder = shutil.copytree(finished, tmp_path / "study", symlinks=True)
    (manifest,) = folder.glob("results/snapshot/*/manifest.json")
    made = json.loads(manifest.read_text())
    trained = {path: path.stat().st_mtime_ns for path in folder.glob("results/train/*/*.*") if path.is_file()}
    shutil.rmtree(folder / "results" / made["train"] / "snapshots")
    shutil.rmtree(manifest.parent)
    assert snakemake(folder, "--cores", "1", str(manifest.relative_to(folder))).returncode == 0
    again = json.loads(manifest.read_text())
    assert (made["repeated"], again["repeated"]) == (False, True) and again["weights"] == made["weights"]
    assert trained == {path: path.stat().st_mtime_ns for path in trained}
    assert {path.name for path in manifest.parent.iterdir()} == {
        "recipe.json", "weights.safetensors", "manifest.json", "logs"
    }  # fmt: skip
    assert "train_again" not in planned(folder)


def test_a_reverted_value_retrains_nothing(finished, edit):
    edit(STUDY, "learning_rate: 2.0e-3", "learning_rate: 1.0e-3")
    assert planned(finished)["train_last_slice"] == 4
    edit(STUDY, "learning_rate: 1.0e-3", "learning_rate: 2.0e-3")
    assert not {"train_slice", "train_last_slice", "draw_samples", "score"} & set(planned(finished))


def test_touched_recipes_and_data_train_nothing(finished):
    import os

    touched = [*finished.glob("results/*/*/recipe.json"), *finished.glob("results/data/*/manifest.json")]
    before = {path: path.stat() for path in touched}
    for path in touched:
        path.touch()
    rules = planned(finished)
    for path, stat in before.items():
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not {"train_slice", "train_last_slice", "draw_samples"} & set(rules)


def test_another_study_leaves_the_results_of_this_one(finished):
    done = snakemake(finished, "-n", "--config", "study=laptop")
    outputs = re.findall(r"^    output: (.*)$", done.stdout + done.stderr, re.M)
    written = {path for line in outputs for path in line.split(", ")}
    own = {str(path.relative_to(finished)) for path in finished.glob("re[sp]*s/studies/quick/**/*") if path.is_file()}
    assert done.returncode == 0 and len(own) > 30 and not written & own
    assert {path for path in written if path.startswith("results/studies/")}


def test_named_targets(finished):
    listed = snakemake(finished, "--list").stdout.split()
    assert {"all", "data", "report", "no-progressive", "guidance", "training", "sampling"} <= set(listed)
    assert planned(finished, "no-progressive") == planned(finished, "sampling") == planned(finished, "data") == {}
