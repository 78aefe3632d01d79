"""Runs that change settings of their data set, and networks with as many classes as it has."""

import pytest

from mdm.config import StudyError
from mdm.study import study, typed

RUN = {
    "base.data": "made", "base.validation": None, "base.text": None, "base.train.validate_images": 0,
    "data.made": {"source": "scenes", "settings": {"split": "train", "seed": 1, "num_images": 64, "resolution": 32}},
    "claims": {}, "along": None,
    "protocols": {"drawn": {"description": "eight", "num_images": 8}},
    "base.model": {"levels": {8: {"channels": [32], "resnets": [1], "attention": [1], "heads": 2, "norm_groups": 8}}},
    "base.stages": {"one": {"resolutions": [8], "num_images": 64}},
    "base.train.batch_images": 8, "base.sample": {},
}  # fmt: skip


def loaded(**more):
    return study.load("quick", RUN | {"ablations": {}} | {key.replace("__", "."): value for key, value in more.items()})


def entry(**more):
    return {"title": "Sizes", "question": "?", "group": next(iter(study.load("quick").groups)), **more}


def trained_on(found, name):
    return found.recipe(found.recipe(found.runs_named(name)[0].stages[-1].artifact).data)


def test_a_sweep_over_data_sets_is_one_entry():
    found = loaded(ablations={"size": entry(sweep={"data_settings.num_images": [16, 32]})})
    assert trained_on(found, "size=16").settings["num_images"] == 16
    assert trained_on(found, "size=32").settings["num_images"] == 32
    assert trained_on(found, "base").settings["num_images"] == 64
    assert len(found.of_kind("data")) == 3, "and each is made once"


def test_saying_what_is_so_anyhow_makes_no_other_data_set():
    found, plain = loaded(base__data_settings={"num_images": 64}), loaded()
    assert found.runs[0].stages[-1].artifact == plain.runs[0].stages[-1].artifact


def test_settings_of_a_data_set_that_no_stage_trains_on_are_refused():
    stages = {"one": {"resolutions": [8], "num_images": 64, "data": "made"}}
    with pytest.raises(StudyError, match=r"base\.data_settings: every stage names a data set of its own"):
        loaded(base__data_settings={"num_images": 16}, base__stages=stages)


def test_a_text_is_not_taken_for_the_number_that_it_looks_like():
    """Settings are looked up by what they say; the second of these is wrong, and was taken for the first."""
    with pytest.raises(StudyError, match="classes"):
        loaded(
            data__made={"source": "cifar10", "settings": {"num_images": 10}},
            base__data_settings={"classes": ["cat"]},
            ablations={"text": entry(set={"data_settings": {"classes": "['cat']"}})},
        )


def test_an_unknown_setting_is_named_with_its_data_set():
    with pytest.raises(StudyError, match=r"data\.made with num_image: 3.*num_images"):
        loaded(base__data_settings={"num_image": 3})


def test_the_number_of_classes_is_that_of_the_data_set():
    labels = {"label": "random", "random_classes": 7, "label_seed": 0}
    found = loaded(
        base__data_settings=labels, base__model__classes="data",
        ablations={"more": entry(sweep={"data_settings.random_classes": [3, 5]})},
    )  # fmt: skip
    classes = {run.name: found.recipe(run.stages[-1].artifact).model.classes for run in found.runs}
    assert classes == {"base": 7, "more=3": 3, "more=5": 5}


def test_labels_that_no_network_reads_are_refused():
    with pytest.raises(
        StudyError, match=r"label: unique has no effect on a network without classes; write model.classes"
    ):
        loaded(base__data_settings={"label": "unique"})


def test_classes_of_a_data_set_without_labels_are_refused():
    with pytest.raises(StudyError, match=r"data\.made has no label `class`; write label: class"):
        loaded(base__model__classes="data")


def test_other_data_sets_that_runs_made_are_no_names_to_choose_from():
    with pytest.raises(StudyError) as error:
        loaded(base__data_settings={"num_images": 16}, base__validation="nowhere", base__train__validate_images=8)
    assert " with " not in str(error.value)


def test_cases_may_be_named_by_numbers():
    found = loaded(ablations={"size": entry(cases={16: {"data_settings.num_images": 16}})})
    assert [run.name for run in found.runs_named("size=16")]


def test_numbers_among_overrides_become_themselves_again_and_words_stay_words():
    """Snakemake hands nested values of --config on as strings."""
    given = {"a": "3", "b": ["0.5", "true", "null"], "c": "?", "d": "1, 2", "e": "2026-01-01", "f": "x: [", "g": "a b"}
    wanted = {"a": 3, "b": [0.5, True, None], "c": "?", "d": "1, 2", "e": "2026-01-01", "f": "x: [", "g": "a b"}
    assert typed(given) == wanted
