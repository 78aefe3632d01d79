"""A study file becomes runs, stages and digests: what is shared, what is new, and what is refused."""

import copy
import subprocess
import sys

import pytest
import yaml

from mdm.config import StudyConfig, StudyError
from mdm.config.recipe import strings
from mdm.study import study, variants
from mdm.study.study_file import STUDIES, read_yaml

QUICK = read_yaml(STUDIES / "quick.yaml")


@pytest.fixture
def write(tmp_path):
    """Write a changed copy of the quick study and return its path."""

    def _write(change=lambda raw: None):
        raw = copy.deepcopy(QUICK)
        change(raw)
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        return str(path)

    return _write


def trainings(loaded):
    return [ref for ref in loaded.artifacts if ref.startswith("train/")]


@pytest.mark.parametrize("path", STUDIES.glob("*.yaml"), ids=lambda p: p.stem)
def test_every_study_of_the_repository_is_valid(path):
    assert study.load(str(path)).runs


def test_importing_the_study_brings_no_torch():
    code = "import sys, mdm.study; mdm.study.load('laptop'); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_sweep_of_sampling_trains_nothing_new(write):
    without = study.load(write(lambda raw: raw["ablations"].pop("guidance")))
    assert trainings(study.load(write())) == trainings(without)


def test_runs_share_a_common_prefix_of_stages(write):
    def longer(raw):
        raw["ablations"]["longer"] = {
            "title": "t", "question": "q", "group": "training", "set": {"stages.r32.num_images": 512},
        }  # fmt: skip

    base, added = study.load(write()), study.load(write(longer))
    new = set(trainings(added)) - set(trainings(base))
    assert {ref.rpartition("-")[0] for ref in new} == {"train/r32"} and len(new) == 1


@pytest.mark.parametrize("words", ["title", "question", "abstract"])
def test_words_change_no_digest(write, words):
    changed = study.load(write(lambda raw: raw.update({words: "other words"})))
    assert list(changed.artifacts) == list(study.load(write()).artifacts)
    assert changed.digest == study.load(write()).digest


def test_job_sizes_change_no_digest(write):
    def other_sizes(raw):
        raw["base"]["stages"]["r8"].update(slice_images=128, resources={"gpus": 1, "minutes": 9})

    assert trainings(study.load(write(other_sizes))) == trainings(study.load(write()))


def test_how_a_job_computes_changes_no_digest_but_its_options(write):
    def thrifty(raw):
        raw["base"]["stages"]["r16"]["resources"] = {"recompute": [8, 16], "compile": "blocks"}

    loaded = study.load(write(thrifty))
    assert trainings(loaded) == trainings(study.load(write()))
    options = [loaded.resources(ref).options for ref in trainings(loaded)[:2]]
    assert options == ["--compile none --preview-images 256", "--recompute 8 16 --compile blocks"]


def test_a_stage_recomputes_only_levels_it_has(write):
    def foreign(raw):
        raw["base"]["stages"]["r8"]["resources"] = {"recompute": [16]}

    with pytest.raises(StudyError, match=r"resources.recompute \[16\]: this stage has the levels \[8\]"):
        study.load(write(foreign))


def test_an_early_stage_changes_all_later_ones_and_reverting_finds_them_again(write):
    before = trainings(study.load(write()))
    changed = trainings(study.load(write(lambda raw: raw["base"]["stages"]["r8"].update(num_images=1024))))
    assert not set(before[:3]) & set(changed)
    assert trainings(study.load(write())) == before


def test_a_late_stage_leaves_the_early_ones(write):
    before = trainings(study.load(write()))
    changed = trainings(study.load(write(lambda raw: raw["base"]["stages"]["r32"].update(num_images=512))))
    assert changed[:2] == before[:2] and changed[2] != before[2]


def test_a_seed_is_another_training_and_the_same_data(write):
    loaded = study.load(write(lambda raw: raw.update(seeds=[0, 1])))
    first, second = (run for run in loaded.runs if run.name == "base")
    assert first.stages[0].artifact != second.stages[0].artifact
    assert loaded.recipe(first.stages[0].artifact).data == loaded.recipe(second.stages[0].artifact).data


def test_a_stage_holds_only_its_own_levels(write):
    loaded = study.load(write())
    resolutions = [[x.resolution for x in loaded.recipe(ref).model.levels] for ref in trainings(loaded)]
    assert resolutions[:3] == [[8], [8, 16], [8, 16, 32]]


def test_slices_end_where_the_next_begins(write):
    loaded = study.load(write())
    first = trainings(loaded)[0]  # 512 images in slices of 256
    assert loaded.slice_before(first, 256) is None
    assert loaded.slice_before(first) == "slice-256.ckpt"
    # Slices of another size that are there already: the newest one on the way is taken up.
    assert loaded.slice_before(first, None, kept=[192, 320, 512]) == "slice-320.ckpt"
    assert loaded.slice_before(first, 256, kept=[64, 192, 320]) == "slice-192.ckpt"


def test_overrides_are_settings_of_the_study():
    changed = study.load("quick", {"base.train.learning_rate": 0.5})
    assert changed.recipe(trainings(changed)[0]).train.learning_rate == 0.5
    assert changed.call.mdm.startswith("--study quick --set ")
    assert changed.call.snakemake == ["study=quick", 'set={"base.train.learning_rate": 0.5}']


def entry(**fields):
    return {"title": "t", "question": "q", "group": "training", **fields}


def test_the_shift_of_a_single_level_is_no_other_training(write):
    """An ablation of what only nests have shares the stages that are no nest yet."""
    changes = {"diffusion.shift_power": 2.0, "diffusion.shared_noise": True}
    loaded = study.load(write(lambda raw: raw["ablations"].update(s=entry(set=changes))))
    base, other = (next(run for run in loaded.runs if run.name == name) for name in ("base", "s"))
    same = [a.artifact == b.artifact for a, b in zip(base.stages, other.stages, strict=True)]
    assert same == [True, False, False]


def test_a_shifted_single_level_is_another_training(write):
    changes = {"diffusion.shift_power": 2.0, "diffusion.base_resolution": 4}
    loaded = study.load(write(lambda raw: raw["ablations"].update(s=entry(set=changes))))
    shifted = next(run for run in loaded.runs if run.name == "s").stages[0].artifact
    assert loaded.recipe(shifted).diffusion.shift_power == 2.0


def test_the_rate_of_inherited_weights_is_no_other_first_stage(write):
    before = study.load(write()).runs[0].stages
    after = study.load(write(lambda raw: raw["base"]["train"].update(inner_rate=0.1))).runs[0].stages
    assert [a.artifact == b.artifact for a, b in zip(before, after, strict=True)] == [True, False, False]


def test_settings_of_guidance_do_not_count_without_it(write):
    """A sweep of guidance may pass through 1 although base says how to guide."""

    def rescaled(raw):
        raw["base"]["sample"].update(guidance_rescale=0.7, negative_prompt="a blur")

    plain, changed = study.load(write()), study.load(write(rescaled))
    samples = [{run.name: run.evaluations[0].samples for run in loaded.runs} for loaded in (plain, changed)]
    assert samples[0]["guidance=1.0"] == samples[1]["guidance=1.0"]
    assert samples[0]["guidance=4.0"] != samples[1]["guidance=4.0"]
    assert changed.recipe(changed.recipe(samples[1]["guidance=4.0"]).text).captions == ("a blur",)


def test_every_run_records_its_class_label_only_if_it_has_classes(write):
    def classes(raw):
        raw["base"].update(class_label="count")
        raw["base"]["model"].update(classes=5)

    for loaded, label in ((study.load(write()), None), (study.load(write(classes)), "count")):
        recipe = loaded.recipe(trainings(loaded)[0])
        assert recipe.class_label == label and recipe.model.classes == (5 if label else None)


@pytest.mark.parametrize(("value", "name"), [(1.5, "s=1.5"), ([2, 1], "s=2-1"), (True, "s=true"), (1e-05, "s=1e-05")])
def test_a_swept_value_names_its_run(write, value, name):
    def sweep(raw):
        raw["ablations"] = {
            "s": {"title": "t", "question": "q", "group": "sampling", "sweep": {"diffusion.min_snr": [5]}}
        }

    assert variants._slug(value) == name.removeprefix("s=")
    raw_study = write(lambda raw: (sweep(raw), raw.update(claims={})))
    assert [run.name for run in study.load(raw_study).runs] == ["base", "s=5"]


WRONG = {
    "a typo": (lambda raw: raw["base"]["train"].update(lerning_rate=1), "base.train", "'learning_rate'"),
    "a wrong type": (lambda raw: raw["base"]["train"].update(batch_images="many"), "batch_images", "'many'"),
    "no such data set": (lambda raw: raw["base"].update(data="scenes-trian"), "scenes-trian", "'scenes-train'"),
    "no such source": (lambda raw: raw["data"]["scenes-new"].update(source="scene"), "scene", "'scenes'"),
    "a typo in a source": (
        lambda raw: raw["data"]["scenes-new"]["settings"].update(splt="all"), "data.scenes-new", "'split'",
    ),
    "an impossible chain": (
        lambda raw: raw["base"]["stages"].update(r16={"resolutions": [8, 32], "num_images": 256}),
        "impossible", "3 channel",
    ),
    "a level that is not there": (
        lambda raw: raw["base"]["stages"]["r32"].update(resolutions=[8, 16, 64]), "no level 64", "32",
    ),
    "a stage that drops a level": (
        lambda raw: raw["base"]["stages"]["r32"].update(resolutions=[16, 32]), "do not continue", "r16",
    ),
    "data that is too small": (
        lambda raw: raw["data"]["scenes-train"]["settings"].update(resolution=16), "stored at 16", "32",
    ),
    "a batch that does not divide": (
        lambda raw: raw["base"]["stages"]["r32"].update(num_images=250), "250", "256",
    ),
    "a slice that does not divide": (
        lambda raw: raw["base"]["stages"]["r8"].update(slice_images=100), "100", "96",
    ),
    "an ablation of nothing": (
        lambda raw: raw["ablations"]["guidance"].pop("sweep"), "ablations.guidance", "changes nothing",
    ),
    "an ablation of an unknown key": (
        lambda raw: raw["ablations"]["guidance"].update(sweep={"sample.guidence": [1]}), "guidence", "'guidance'",
    ),
    "an unknown opponent": (
        lambda raw: raw["ablations"]["guidance"].update(against="bass"), "against", "'base'",
    ),
    "an unknown group": (lambda raw: raw["ablations"]["guidance"].update(group="samplng"), "group", "'sampling'"),
    "a name that is a target": (
        lambda raw: raw["ablations"].update(all=raw["ablations"]["guidance"]), "all", "rename",
    ),
    "an ablation called like a group": (
        lambda raw: raw["ablations"].update(sampling=raw["ablations"]["guidance"]), "sampling", "rename",
    ),
    "a wrong hash": (
        lambda raw: raw["protocols"]["zero-shot"].update(inception={"path": "x", "sha256": "abc"}), "sha256", "'abc'",
    ),
    "a claim about an unknown run": (
        lambda raw: raw["claims"]["progressive"].update(expect='fd_judge["bse"] < 1'), "bse", "'base'",
    ),
    "a claim about an unknown metric": (
        lambda raw: raw["claims"]["progressive"].update(expect='fd_juge["base"] < 1'), "fd_juge", "fd_judge",
    ),
    "a claim that runs code": (
        lambda raw: raw["claims"]["progressive"].update(expect='__import__("os")'), "claims.progressive", "not allowed",
    ),
    "a share too small for the batch": (
        lambda raw: raw["base"]["stages"]["r16"].update(diffusion={"mixed_ratio": [1, 19]}),
        "base.stages.r16", "a batch of 16 for the highest level", "larger train.batch_images",
    ),
    # Where two of the released configurations have theirs, and nothing reads them.
    "a mixed ratio outside of diffusion": (
        lambda raw: raw["base"].update(mixed_ratio=[2, 1]), "base", "mixed_ratio",
    ),
    "level weights outside of diffusion": (
        lambda raw: raw.update(multi_res_weights="16:4:1"), "multi_res_weights", "valid",
    ),
    "noise for a sampler without": (
        lambda raw: raw["base"]["sample"].update(sampler="dpm++", eta=0.5), "base.sample", "eta 0.5 has no effect",
    ),
    "more steps than there are": (
        lambda raw: raw["base"]["stages"]["r32"].update(diffusion={"steps": 4}), "sample.steps 5", "at most 4",
    ),
    "settings of another parameterisation": (
        lambda raw: raw["base"].update(diffusion={"parameterisation": "edm", "loss_on": "v"}),
        "base.diffusion", "loss_on v has no effect",
    ),
    "a class label without classes": (lambda raw: raw["base"].update(class_label="shapes"), "model.classes"),
    "layers over no text": (lambda raw: raw["base"].update(text=None), "model.text_layers 1 has no effect"),
    "a negative prompt for no text": (
        lambda raw: (raw["base"].update(text=None), raw["base"]["model"].pop("text_layers"),
                     raw["base"]["sample"].update(negative_prompt="a blur")),
        "sample.negative_prompt 'a blur' has no effect without text",
    ),
    "guidance towards nothing": (
        lambda raw: (raw["base"].update(text=None), raw["base"]["model"].pop("text_layers")),
        "guidance 2.0 needs a condition",
    ),
    "guidance away from what was never shown": (
        lambda raw: (
            raw["base"]["model"].update(classes=9),
            raw["base"].update(class_label="shapes"),
            raw["base"]["train"].update(condition_dropout=0.0),
        ),
        "condition_dropout 0 never shows", "0.1",
    ),
    "no number": (lambda raw: raw["base"]["train"].update(learning_rate=float("inf")), "learning_rate", "finite"),
    "a momentum that never forgets": (
        lambda raw: raw["base"]["train"].update(betas=[0.9, 1.0]), "betas", "less than 1",
    ),
    "a middle around a level": (
        lambda raw: raw["base"]["model"]["levels"][16].update(middle=True),
        "middle: true has no effect on the level 16",
    ),
    "heads that do not divide the text": (
        lambda raw: raw["base"]["model"].update(text_projection=20), "text layers over 20 channels",
    ),
    "a frozen stage without a level of its own": (
        lambda raw: raw["base"]["stages"]["r32"].update(resolutions=[8, 16], train={"inner_rate": 0}),
        "base.stages.r32", "inner_rate 0 freezes every weight",
    ),
    "a rate of weights that no stage left": (
        lambda raw: raw["base"]["stages"]["r8"].update(train={"inner_rate": 0.1}), "no effect in a first stage",
    ),
    "validation on nothing": (
        lambda raw: raw["base"].pop("validation"), "base.stages.r8", "validate_images 128 has no effect",
    ),
    "more noise levels than numbers": (
        lambda raw: raw["base"].update(diffusion={"steps": 10_000}), "base.diffusion.steps", "5000",
    ),
    "a judge with a typo": (
        lambda raw: raw["judges"]["judge"]["settings"].update(resolutoin=1), "judges.judge", "'resolution'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_refused_with_place_and_remedy(write, case):
    change, *words = WRONG[case]
    with pytest.raises(StudyError) as refused:
        study.load(write(change))
    assert all(word in str(refused.value) for word in ("changed.yaml", *words)), str(refused.value)


def test_all_numbers_of_protocols_that_are_too_large_are_told_at_once(write):
    def change(raw):
        raw["protocols"]["second"] = {**raw["protocols"]["zero-shot"], "num_reference": 65}
        raw["protocols"]["zero-shot"].update(num_images=70, num_reference=71)

    with pytest.raises(StudyError) as refused:
        study.load(write(change))
    assert str(refused.value).splitlines() == [
        f"changed.yaml: protocols.{place}: {wanted} pictures of data.scenes-new, which has 64; write 64 or less"
        for place, wanted in (
            ("zero-shot.num_images", 70),
            ("zero-shot.num_reference", 71),
            ("second.num_reference", 65),
        )
    ]


def test_a_key_written_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("title: a\ntitle: b\n")
    with pytest.raises(StudyError, match=r"line 2.*'title' is written twice"):
        study.load(str(path))


def test_an_unknown_study_names_the_nearest():
    with pytest.raises(StudyError, match="did you mean 'laptop'"):
        study.load("laptp")


def test_yaml_cannot_build_objects(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("title: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(StudyError, match="not valid YAML"):
        study.load(str(path))


def guided(raw):
    """The quick study with a run that an earlier end of the same training guides."""
    raw["ablations"]["short"] = {
        "title": "t", "question": "q", "group": "training", "set": {"stages.r32.num_images": 128}, "protocols": [],
    }  # fmt: skip
    raw["ablations"]["autoguidance"] = {
        "title": "t", "question": "q", "group": "sampling",
        "set": {"sample.guide": "short", "sample.guidance": 1.0}, "sweep": {"sample.autoguidance": [1.5, 2.0]},
    }  # fmt: skip


def test_a_run_is_guided_by_the_network_of_another(write):
    loaded = study.load(write(guided))
    short = loaded.runs_named("short")[0].stages[-1].artifact
    for run in (loaded.runs_named(f"autoguidance={weight}")[0] for weight in (1.5, 2.0)):
        recipe = loaded.recipe(run.evaluations[0].samples)
        assert recipe.guide == short and recipe.train == loaded.runs_named("base")[0].stages[-1].artifact
        assert short in strings(recipe.plain()), "the job that draws must wait for both networks"

    def renamed(raw):
        guided(raw)
        raw["ablations"]["brief"] = raw["ablations"].pop("short")
        raw["ablations"]["autoguidance"]["set"]["sample.guide"] = "brief"

    assert loaded.artifacts.keys() == study.load(write(renamed)).artifacts.keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sample.guide": "short"}, "autoguidance 1 with guide short"),
        ({"sample.autoguidance": 2.0}, "autoguidance 2 with guide none"),
        ({"sample.guide": "shrot", "sample.autoguidance": 2.0}, "did you mean 'short'"),
        ({"sample.guide": "short", "sample.autoguidance": 2.0, "diffusion.loss_on": "v"}, "other diffusion settings"),
    ],
)
def test_impossible_guides_are_refused(write, change, words):
    def wrong(raw):
        guided(raw)
        raw["ablations"]["autoguidance"] = {"title": "t", "question": "q", "group": "sampling", "set": change}

    with pytest.raises(StudyError, match=words):
        study.load(write(wrong))


def test_a_sweep_over_two_settings_is_a_grid(write):
    def grid(raw):
        raw["ablations"]["guidance"]["sweep"] = {"sample.guidance": [1.5, 4.0], "sample.steps": [5, 7]}

    names = [run.name for run in study.load(write(grid)).runs if run.ablation == "guidance"]
    assert names == ["guidance=1.5,5", "guidance=1.5,7", "guidance=4.0,5", "guidance=4.0,7"]


def test_a_claim_that_could_never_be_measured_is_refused():
    """Inception has 2,048 features; under 700 pictures the claim would say "Not measured yet" for ever."""
    claim = 'fid_unbiased["base", "new-concepts"] < fid_unbiased["no-progressive", "new-concepts"]'
    with pytest.raises(StudyError, match=r"needs more than 2048 pictures.*has 700; use kid_inception"):
        study.load("workstation", {"claims.progressive-training.expect": claim})


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ('detail_64["base", "familiar"] < 2', "protocol 'familiar' measures no detail; write spectrum: true in it"),
        ('detail_32["single-scale"] < 2', "'single-scale' draws no such level; write detail_64"),
    ],
)
def test_a_claim_about_detail_that_nobody_measures_is_refused(claim, words):
    with pytest.raises(StudyError, match=words):
        study.load("laptop", {"claims.more-levels.expect": claim})


def test_a_sweep_over_negative_values_names_them():
    means = {
        "title": "t",
        "question": "q",
        "group": "recipe",
        "sweep": {"stages.r16.diffusion.noise_mean": [-0.8, 0.8]},
    }
    names = {run.name for run in study.load("laptop", {"ablations.means": means}).runs}
    assert {"means=minus0.8", "means=0.8"} <= names


def test_every_key_of_a_study_file_is_described():
    """Editors show these sentences, and docs/settings.md sends readers there for every key."""
    schema = StudyConfig.model_json_schema()
    bare = [
        f"{name}.{key}"
        for name, definition in {"a study": schema, **schema["$defs"]}.items()
        for key, entry in definition.get("properties", {}).items()
        if "description" not in entry and "$ref" not in entry
    ]
    assert not bare
