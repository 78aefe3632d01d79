"""Why the optimum copies: its answers, weights and samples, the linear denoiser, and the section of the report."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import results_fixture as fixture
import torch
from evaluate_artifacts import put, ref, scenes

from mdm.config import StudyError
from mdm.config.recipe_measured import TheoryRecipe
from mdm.data.batches.reader import Pictures
from mdm.diffusion.linear import LinearNetwork
from mdm.diffusion.optimal import posterior
from mdm.evaluate import theory
from mdm.files.atomic import ArtifactError
from mdm.report import theory as read
from mdm.report.collect import Artifacts, collect
from mdm.report.page import html
from mdm.report.page.theory import explainer
from mdm.study import products, study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A results folder with a finished explanation from 40 scenes of 8 px."""
    results = tmp_path_factory.mktemp("results")
    data = scenes(results, 40, 8, framing="close")
    recipe = put(results, "theory", "scenes", data=ref(data), num_images=6, sets=(6, 40), seed=0, resolution=8)
    theory.draw_theory(recipe)
    return results, recipe


def test_every_sample_of_the_optimum_is_a_training_picture_to_the_last_grey_level(made):
    results, recipe = made
    found = json.loads((recipe.parent / "theory.json").read_text())
    drawn = [line for line in found["copies"] if line["of"] == "drawn"]
    assert len(drawn) == theory.DRAWN and all(line["largest_difference"] == 0 for line in drawn)
    arrays = np.load(recipe.parent / "theory.npz")
    for line, picture in zip(drawn, arrays["drawn"], strict=True):
        np.testing.assert_array_equal(picture, arrays["pictures"][line["nearest"]])
    data = Pictures(results / json.loads(recipe.read_text())["data"])
    np.testing.assert_array_equal(arrays["pictures"], [data.image(number) for number in range(6)])


def test_the_linear_denoiser_draws_mixtures_from_the_same_noises(made):
    _, recipe = made
    found = json.loads((recipe.parent / "theory.json").read_text())
    mixed = [line for line in found["copies"] if line["of"] == "mixed"]
    assert len(mixed) == theory.DRAWN and all(line["largest_difference"] > 10 for line in mixed)
    assert sum(3 * line["distance"] < line["second"] for line in mixed) < theory.DRAWN / 2


def test_weights_sharpen_from_all_pictures_to_one(made):
    _, recipe = made
    answers = json.loads((recipe.parent / "theory.json").read_text())["answers"]
    counts = [answer["effective"] for answer in answers]
    assert counts == sorted(counts, reverse=True) and counts[0] > 5.5 and counts[-1] == pytest.approx(1, abs=1e-6)
    assert all(sum(answer["weights"]) == pytest.approx(1) for answer in answers)
    assert answers[-1]["weights"][0] == pytest.approx(1, abs=1e-6), "the picture that is in the noise"


def test_weights_are_those_with_which_the_optimum_answers():
    few = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    gammas = theory.gammas_of([20.0, 5.0, 2.0, 0.5])
    noises = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    noisy = theory.noised(few[:1], gammas, noises)
    answered = posterior([noisy], gammas[None], [[few]]).clean[0]
    weights = theory.weights_of(noisy, gammas, few).float()
    torch.testing.assert_close((weights @ few.flatten(1)).view_as(answered), answered, atol=1e-4, rtol=1e-4)


def test_more_pictures_leave_more_unknown_and_the_linear_denoiser_loses_most(made):
    _, recipe = made
    curve = json.loads((recipe.parent / "theory.json").read_text())["curve"]
    few, many, linear = (np.array(part) for part in (*curve["optimal"].values(), curve["linear"]))
    assert (np.diff(few) > -1e-6).all() and (np.diff(linear) > 0).all(), "the more noise, the more is unknown"
    middle = slice(8, 20)
    assert (many[middle] > few[middle]).all() and (linear > few - 0.005).all(), "but for the luck of the noises"
    assert few[0] < 1e-6 and linear[0] > 1e-5


def test_the_linear_denoiser_is_the_least_squares_fit():
    """No other linear map of centred noisy pictures has a smaller error; its loss is what it says."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(4, 3, 2, 2, generator=generator)
    sigma, times = 0.7, 40_000
    gammas = theory.gammas_of([sigma])
    clean = pictures.repeat(times // 4, 1, 1, 1)
    noisy = theory.noised(clean, gammas.expand(times), torch.randn(clean.shape, generator=generator))
    network = LinearNetwork(pictures, gammas[None])
    answers = network.answer(noisy, gammas.expand(times))
    loss = float((answers - clean).square().mean())
    assert loss == pytest.approx(float(network.loss(torch.tensor([sigma]))), rel=0.01)
    seen = noisy.flatten(1).double() / gammas.sqrt() - network.mean
    fitted = torch.linalg.lstsq(seen, clean.flatten(1).double() - network.mean).solution
    best = float((seen @ fitted + network.mean - clean.flatten(1)).square().mean())
    assert best <= loss <= best * 1.001


def test_it_is_the_same_whenever_it_is_made(made):
    _, recipe = made
    before = [(recipe.parent / name).read_bytes() for name in ("theory.json", "theory.npz")]
    theory.draw_theory(recipe)
    assert [(recipe.parent / name).read_bytes() for name in ("theory.json", "theory.npz")] == before


def test_a_set_whose_duplicates_were_left_out_is_explained_by_what_is_left(tmp_path):
    """Recipes ask before anybody knows how many pictures will be left."""
    knobs = {"framing": "close", "copies": {"count": 3, "of": 4}, "duplicates": "files"}
    data = scenes(tmp_path, 10, 8, **knobs)
    recipe = put(tmp_path, "theory", "x", data=ref(data), num_images=12, sets=(12, 18), seed=0, resolution=8)
    theory.draw_theory(recipe)
    assert list(json.loads(recipe.with_name("theory.json").read_text())["curve"]["optimal"]) == ["10"]
    assert len(np.load(recipe.with_name("theory.npz"))["pictures"]) == 10


def test_too_few_pictures_are_an_error(tmp_path):
    data = scenes(tmp_path, 1, 8)
    single = put(tmp_path, "theory", "x", data=ref(data), num_images=12, sets=(12,), seed=0, resolution=8)
    with pytest.raises(ArtifactError, match="has 1 pictures that can be used; it takes 2 or more"):
        theory.draw_theory(single)


def test_a_study_asks_by_one_key_and_nothing_else_changes():
    plain, asked = study.load("quick"), study.load("quick", {"theory": True})
    assert plain.theory is None and plain.digest == asked.digest
    assert set(asked.artifacts) - set(plain.artifacts) == {asked.theory}
    recipe = asked.recipe(asked.theory)
    assert isinstance(recipe, TheoryRecipe) and (recipe.num_images, recipe.sets) == (12, (12, 96, 512))
    assert (recipe.resolution, asked.parents(asked.theory)) == (32, [recipe.data])
    assert asked.theory in asked.measured() and "theory" in products.figure_names(asked)
    assert asked.theory not in asked.measured("no-progressive")
    few = study.load("quick", {"theory": True, "base.take": 7})
    assert few.recipe(few.theory).sets == (7,)


def test_one_picture_explains_nothing():
    with pytest.raises(StudyError, match="base trains on 1; leave it out"):
        study.load("quick", {"theory": True, "base.take": 1})


def of_fixture(made, tmp_path):
    """The invented study of the report's tests, which asks for the explanation that was made."""
    _, recipe = made
    told = fixture.make_study()
    told.theory = ref(recipe)
    sources = fixture.write_tree(told, tmp_path)
    (sources.results / told.theory).parent.mkdir()
    (sources.results / told.theory).symlink_to(recipe.parent)
    return told, sources


def test_the_report_explains_it_with_pictures(made, tmp_path):
    told, sources = of_fixture(made, tmp_path)
    view = explainer(told, Artifacts(sources.results))
    assert (len(view.known), len(view.steps), view.equal, view.copied) == (6, len(theory.SIGMAS), 6, 6)
    html.write_report(told, sources, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    section = page[page.index('<section id="theory">') :].partition("</section>")[0]
    assert '<a href="#theory">' in page and "6 equal a training picture in every value" in section
    assert section.count("data:image/png;base64") == 6 + 3 * len(theory.SIGMAS) + 4 * theory.DRAWN
    assert "best denoiser of 40 pictures" in section and not re.search(r"src=\"(?!data:)", section)


def test_a_report_without_it_says_nothing_and_one_before_it_is_made_says_so(tmp_path):
    told = fixture.make_study()
    sources = fixture.write_tree(told, tmp_path)
    html.write_report(told, sources, tmp_path / "index.html")
    assert "Why the optimum copies" not in (tmp_path / "index.html").read_text()
    told.theory = "theory/some-0123456789ab"
    assert explainer(told, Artifacts(sources.results)) is None
    assert told.theory in {entry["artifact"] for entry in collect(told, sources.results)[1]}
    html.write_report(told, sources, tmp_path / "index.html")
    assert "Nothing of it has been drawn yet" in (tmp_path / "index.html").read_text()


def test_a_file_of_another_kind_is_named(tmp_path):
    folder = tmp_path / "theory" / "some"
    folder.mkdir(parents=True)
    (folder / "theory.json").write_text('{"answers": [], "copies": [], "curve": {}}')
    np.savez(folder / "theory.npz", pictures=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ArtifactError, match="lacks noisy, answers, linear, drawn, mixed"):
        read.read(SimpleNamespace(theory="theory/some"), Artifacts(tmp_path))
