"""Latent diffusion: autoencoders, codes of unit scale made once and drawn anew, and runs that are trained on them."""

import itertools
import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_artifacts import put, ref, scenes
from latent_world import CODES, OVERRIDES, load, make, run_of
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from training_world import NEVER, begin, train_and_halt

from mdm.config import StudyError, WeightsConfig
from mdm.config.latent import AutoencoderNetwork
from mdm.config.recipe import StageRecipe
from mdm.config.units import large
from mdm.data.batches.codes import Moments
from mdm.data.batches.reader import Pictures
from mdm.data.pictures.decode import BadPicture, Failure
from mdm.data.rows import to_bytes
from mdm.evaluate import autoencoder, encode, fit_saves, fitting
from mdm.evaluate.archive import read_array
from mdm.evaluate.generate import generate
from mdm.files.artifact import read_recipe
from mdm.files.atomic import ArtifactError, read_json, write_json
from mdm.files.hashes import sha256_file
from mdm.files.weights import state_hash
from mdm.model import autoencoder_arithmetic as arithmetic
from mdm.model.coder import build, exactly, open_coder
from mdm.report import collect
from mdm.report.evidence import Evidence
from mdm.report.metrics import describe
from mdm.report.tables.tables import cost_table
from mdm.study import study
from mdm.study.cost import plan
from mdm.study.outside_files import external_files
from mdm.train.checkpoint import read_checkpoint
from mdm.train.example import training_examples
from mdm.train.latents import drawn_codes
from mdm.train.loop import train
from mdm.train.ranks import SINGLE

KL_F4 = {"network": "kl", "resolution": 256, "factor": 4, "codes": 3, "channels": (128, 256, 512)}
KL_F8 = {"network": "kl", "resolution": 256, "factor": 8, "codes": 4, "channels": (128, 256, 512, 512)}
KL_TINY = {
    "network": "kl", "resolution": 32, "factor": 2, "codes": 2, "channels": (8, 16), "resnets": 1, "norm_groups": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The study, and a results folder with everything that its stage on codes needs."""
    torch.set_num_threads(1)
    results, loaded = tmp_path_factory.mktemp("results"), load()
    train_ref = run_of(loaded).stages[0].artifact
    for parent in loaded.parents(train_ref):
        make(results, loaded, parent)
    write_json(results / train_ref / "recipe.json", loaded.recipe(train_ref).plain())
    return results, loaded, results / train_ref / "recipe.json"


@pytest.fixture(scope="module")
def trained(world):
    """The world once its stage was trained in one go; the checkpoint's tensors but for its clock."""
    out = world[2].parent / "final.ckpt"
    train(world[2], out, None, NEVER)
    return without_time(out)


def without_time(path):
    return {name: value for name, value in read_checkpoint(path)[0].items() if name != "progress.seconds"}


def folder_of(world, kind, name=""):
    return next(world[0] / r for r in world[1].of_kind(kind) if name in r)


def pixels_of(world, name="scenes-train", count=None):
    reading = autoencoder.Reading(folder_of(world, "data", name), 32)
    return reading.at(range(count or len(reading)))


@pytest.mark.parametrize(
    ("network", "encoder", "decoder"),
    [({}, 176_456, 252_400), (KL_F4, 22_351_280, 32_960_783), (KL_F8, 34_163_664, 49_490_199)],
)
def test_parameters_are_those_of_the_released_autoencoders(network, encoder, decoder):
    config = AutoencoderNetwork(**network)
    with torch.device("meta"):
        built = build(config)
    assert sum(p.numel() for p in built.parameters()) == encoder + decoder
    assert (arithmetic.parameters(config, "encoder"), arithmetic.parameters(config, "decoder")) == (encoder, decoder)


@pytest.mark.parametrize("network", [{}, KL_F8, KL_TINY, {"resolution": 32, "channels": [16], "norm_groups": 4}])
def test_arithmetic_is_counted_as_torch_counts_it(network):
    config = AutoencoderNetwork(**network)
    with torch.device("meta"):
        built, counted = build(config), []
        for work, given in (built.raw, (3, config.resolution)), (built.decode, (config.codes, config.grid)):
            with FlopCounterMode(display=False) as counter:
                work(torch.empty(1, given[0], given[1], given[1]))
            counted.append(counter.get_total_flops() / 1e9)
    assert counted == pytest.approx([arithmetic.gigaflops(config, half) for half in ("encoder", "decoder")])


def test_weights_of_diffusers_are_read_as_data_also_under_their_former_names(tmp_path):
    config = AutoencoderNetwork(**KL_TINY)
    network, path = build(config, seed=3), tmp_path / "vae.safetensors"
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in network.state_dict().items():
        for now, then in former.items():
            name = name.replace(f"attentions.0.{now}.", f"attentions.0.{then}.")
        attends = "attentions" in name and tensor.ndim == 2
        state[name] = tensor[:, :, None, None].contiguous() if attends else tensor
    save_file(state, path)
    weights = WeightsConfig(path=str(path), sha256=sha256_file(path))
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    found = autoencoder.given(weights, config)
    assert torch.equal(found.raw(pictures), network.raw(pictures))
    with pytest.raises(StudyError, match="it is another file"):
        autoencoder.given(weights.model_copy(update={"sha256": "0" * 64}), config)
    wider = AutoencoderNetwork(**{**KL_TINY, "codes": 3})
    with pytest.raises(ArtifactError, match=r"differ, e.g. decoder.conv_in.weight.*latent_channels"):
        autoencoder.given(weights, wider)


def test_given_weights_become_an_artifact_with_the_scale_of_their_codes(tmp_path):
    config = AutoencoderNetwork(**KL_TINY)
    path, data = tmp_path / "vae.safetensors", scenes(tmp_path, 24, 32)
    save_file(build(config, seed=1).state_dict(), path)
    weights = {"path": str(path), "sha256": sha256_file(path)}
    recipe = put(tmp_path, "autoencoder", "kl", data=ref(data), test=ref(data), network=KL_TINY, weights=weights)
    autoencoder.train_autoencoder(recipe)
    moments = open_coder(recipe.parent).encode(autoencoder.Reading(data.parent, 32).at(range(24)))
    drawn = drawn_codes(moments, 0, range(24), [0] * 24)
    assert drawn.std(dim=(0, 2, 3)) == pytest.approx(np.ones(2), abs=0.03)
    assert read_json(recipe.with_name("manifest.json"))["loss"] is None


def test_reconstructions_are_better_than_what_blocks_of_one_colour_reach(world):
    clean, coder = pixels_of(world), open_coder(folder_of(world, "autoencoder"))
    flat = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(clean, 4), scale_factor=4)
    found = coder.decode(coder.encode(clean)[:, 0])
    assert (found - clean).square().mean() < (flat - clean).square().mean()
    psnr, bits = read_json(folder_of(world, "autoencoder") / "autoencoder.json")["metrics"]
    assert (psnr["metric"], bits["metric"]) == ("autoencoder_psnr", "autoencoder_bits")
    assert 15 < psnr["low"] < psnr["value"] < 40 and psnr["n"] == 32 and bits["value"] > 100
    held_out = pixels_of(world, "scenes-new")
    errors = np.square(to_bytes(coder.decode(coder.encode(held_out)[:, 0])).astype(float) - to_bytes(held_out))
    assert psnr["value"] == pytest.approx(np.mean(10 * np.log10(255**2 / errors.mean(axis=(1, 2, 3)))), abs=1e-3)


def test_kept_codes_are_those_of_encoding_and_have_unit_scale(world):
    moments, coder = Moments(folder_of(world, "latents", "train")), open_coder(folder_of(world, "autoencoder"))
    kept = torch.from_numpy(np.stack([moments.of(number) for number in range(96)])).permute(0, 1, 4, 2, 3).float()
    assert torch.allclose(kept, coder.encode(pixels_of(world)), atol=2e-3, rtol=1e-3)
    drawn = drawn_codes(kept, 0, range(96), [0] * 96)
    assert drawn.std(dim=(0, 2, 3)) == pytest.approx(np.ones(4), abs=0.02)
    assert drawn.mean(dim=(0, 2, 3)) == pytest.approx(np.zeros(4), abs=0.02)
    said = read_json(moments.folder / "manifest.json")["codes"]
    assert said["deviation"] == pytest.approx([1.0] * 4, abs=1e-3)
    with pytest.raises(IndexError, match="0 to 95, not of 96"):
        moments.of(96)


def test_codes_are_drawn_from_seed_picture_and_epoch_alone():
    moments = torch.rand(4, 2, 3, 5, 5) + 0.5
    drawn = drawn_codes(moments, 7, [4, 2, 9, 2], [0, 0, 1, 3])
    alone = torch.cat(
        [drawn_codes(moments[k : k + 1], 7, [n], [e]) for k, (n, e) in enumerate([(4, 0), (2, 0), (9, 1), (2, 3)])]
    )
    assert torch.equal(drawn, alone)
    again = drawn_codes(moments, 7, [4, 2, 9, 2], [0, 0, 1, 4])
    assert torch.equal(drawn[:3], again[:3]) and not torch.equal(drawn[3], again[3])
    assert not torch.equal(drawn, drawn_codes(moments, 8, [4, 2, 9, 2], [0, 0, 1, 3]))


def test_training_sees_other_codes_in_every_epoch_and_the_same_whatever_the_batch(world):
    recipe = read_recipe(world[2], StageRecipe)
    examples = training_examples(world[2], recipe, SINGLE)
    smaller = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_images": 8})})
    first, halves = examples.at(96), [training_examples(world[2], smaller, SINGLE).at(n) for n in (96, 104)]
    assert torch.equal(first.images[0], torch.cat([half.images[0] for half in halves]))
    assert first.images[0].shape == first.noises[0].shape == (16, 4, 8, 8)
    loader, moments = examples._loader, Moments(folder_of(world, "latents", "train"))
    numbers = loader.ids(96, 16)
    means = torch.from_numpy(np.stack([moments.of(n)[0] for n in numbers])).permute(0, 3, 1, 2).float()
    shown, earlier = dict(zip(numbers.tolist(), first.images[0], strict=True)), {}
    for start in range(0, 96, 16):
        earlier |= dict(zip(loader.ids(start, 16).tolist(), examples.at(start).images[0], strict=True))
    assert all(not torch.equal(code, earlier[number]) for number, code in shown.items())
    assert (first.images[0] - means).abs().mean() < 1


def test_encoding_and_decoding_do_not_depend_on_the_batch(world):
    coder, clean = open_coder(folder_of(world, "autoencoder")), pixels_of(world, count=9)
    codes = coder.encode(clean)
    assert torch.allclose(codes, torch.cat([coder.encode(one[None]) for one in clean]), atol=1e-5)
    pictures = coder.decode(codes[:, 0])
    assert torch.allclose(pictures, torch.cat([coder.decode(one[None]) for one in codes[:, 0]]), atol=1e-5)
    assert pictures.abs().max() <= 1


def test_exact_arithmetic_leaves_everything_but_tf32_as_it_is(monkeypatch):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    monkeypatch.setattr(cudnn, "deterministic", True)
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    with pytest.raises(KeyError), exactly(torch.device("cpu")):
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
        assert cudnn.enabled and cudnn.deterministic
        raise KeyError
    assert cudnn.allow_tf32 and cudnn.deterministic


@pytest.mark.parametrize("saved", [False, True])
def test_a_killed_training_of_an_autoencoder_ends_with_the_same_weights(world, tmp_path, monkeypatch, saved):
    """From its beginning, or from its last save, which is there in time if the training takes long."""
    whole = folder_of(world, "autoencoder")
    shutil.copytree(world[0], tmp_path / "results")
    recipe = tmp_path / "results" / whole.relative_to(world[0]) / "recipe.json"
    for name in ("weights.safetensors", "manifest.json", "autoencoder.json"):
        recipe.with_name(name).unlink()
    (process,) = begin(1, fit_and_halt, recipe, 0.0 if saved else 600.0)
    wait_for(recipe.parent / "halted")
    process.kill(), process.join()
    assert process.exitcode == -signal.SIGKILL and not recipe.with_name("weights.safetensors").exists()
    steps, step = [], fitting.rate_factor
    monkeypatch.setattr(fitting, "rate_factor", lambda share: steps.append(share) or step(share))
    autoencoder.train_autoencoder(recipe)
    assert sha256_file(recipe.with_name("weights.safetensors")) == sha256_file(whole / "weights.safetensors")
    fit = read_json(recipe)["fit"]
    assert len(steps) == fit["num_images"] // fit["batch_images"] - (3 if saved else 0)
    assert not (recipe.parent / fit_saves.SAVE).exists()


def fit_and_halt(recipe, seconds):
    """Train three steps of an autoencoder, saving every so many seconds, and then wait to be killed."""
    fit_saves.SAVE_SECONDS = seconds
    count, loss = itertools.count(), autoencoder.reconstruction_loss

    def halting(*words):
        if next(count) >= 3:
            (recipe.parent / "halted").touch()
            time.sleep(600)
        return loss(*words)

    autoencoder.reconstruction_loss = halting
    autoencoder.train_autoencoder(recipe)


def wait_for(path):
    for _ in range(6000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not come")


def test_damaged_and_missing_shards_of_codes_are_made_again_and_others_left_alone(world, tmp_path):
    shutil.copytree(world[0], tmp_path / "results")
    folder = tmp_path / "results" / folder_of(world, "latents", "train").relative_to(world[0])
    files = sorted(folder.glob("shards/*.safetensors"))
    before = {file: sha256_file(file) for file in files}
    assert len(files) == 3
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-2] + b"xx")
    untouched = files[2].stat().st_mtime_ns
    with pytest.raises(ArtifactError, match=r"00000.safetensors does not exist; .* encode .* --shard 0"):
        encode.gather_codes(folder / "recipe.json")
    for job in ((0, 1), (2, 2)):
        encode.encode_shards(folder / "recipe.json", *job)
    encode.gather_codes(folder / "recipe.json")
    assert {file: sha256_file(file) for file in files} == before and files[2].stat().st_mtime_ns == untouched


def test_pictures_that_cannot_be_read_have_no_codes_and_change_no_scale(world, tmp_path, monkeypatch):
    shutil.copytree(world[0], tmp_path / "results")
    folder = tmp_path / "results" / folder_of(world, "latents", "train").relative_to(world[0])
    shutil.rmtree(folder / "shards")
    image = Pictures.image

    def broken(self, number, *asked):
        if number in gone:
            raise BadPicture("it is damaged", Failure.BROKEN_PICTURE)
        return image(self, number, *asked)

    gone = {3, 50, 51, 95}
    monkeypatch.setattr(Pictures, "image", broken)
    said = encode.encode(folder / "recipe.json")
    moments = Moments(folder)
    assert set(moments.missing) == gone and len(moments) == 96
    kept = np.stack([moments.of(number) for number in range(96) if number not in gone]).astype(np.float64)
    mean = kept[:, 0].mean(axis=(0, 1, 2))
    deviation = np.sqrt((kept[:, 0] ** 2 + kept[:, 1] ** 2).mean(axis=(0, 1, 2)) - mean**2)
    assert (said["codes"]["mean"], said["codes"]["deviation"]) == (pytest.approx(mean), pytest.approx(deviation))
    gone = set(range(96))
    shutil.rmtree(folder / "shards")
    with pytest.raises(ArtifactError, match="none of the pictures"):
        encode.encode(folder / "recipe.json")


def test_the_scale_of_codes_is_that_of_pictures_from_the_whole_set(monkeypatch):
    class Sorted(list):
        def at(self, numbers):
            return torch.stack([self[number] for number in numbers])

    # In the order of their classes: black ones first.
    pictures = Sorted(torch.full((3, 32, 32), shade) for shade in np.repeat([-1.0, 1.0], 40).tolist())
    network = build(AutoencoderNetwork(**CODES))
    whole = autoencoder.scale(network, pictures, torch.device("cpu"))
    monkeypatch.setattr(autoencoder, "SCALED_OVER", 40)
    some = autoencoder.scale(network, pictures, torch.device("cpu"))
    assert all(torch.allclose(one, other, rtol=1e-4) for one, other in zip(whole, some, strict=True))


def test_a_killed_training_on_codes_goes_on_bit_for_bit(world, trained, tmp_path):
    shutil.copytree(world[0], tmp_path / "results", ignore=shutil.ignore_patterns("progress", "*.ckpt"))
    recipe = tmp_path / "results" / world[2].relative_to(world[0])
    first, out = recipe.with_name("slice-64.ckpt"), recipe.with_name("final.ckpt")
    train(recipe, first, None, NEVER)
    (process,) = begin(1, train_and_halt, recipe, out, first, 0.0)
    for _ in range(6000):
        if len(list(recipe.parent.glob("progress/autosave-*.ckpt"))) >= 1:
            break
        time.sleep(0.01)
    process.kill(), process.join()
    train(recipe, out, first, NEVER)
    assert state_hash(without_time(out)) == state_hash(trained)


def test_codes_of_other_pictures_are_refused(world, tmp_path):
    shutil.copytree(world[0], tmp_path / "results", ignore=shutil.ignore_patterns("progress", "*.ckpt"))
    recipe = tmp_path / "results" / world[2].relative_to(world[0])
    path = tmp_path / "results" / folder_of(world, "latents", "train").relative_to(world[0]) / "manifest.json"
    write_json(path, {**read_json(path), "data_digest": "another"})
    with pytest.raises(ArtifactError, match="holds codes of other pictures"):
        training_examples(recipe, read_recipe(recipe, StageRecipe), SINGLE)


def test_pictures_are_decoded_and_the_real_ones_show_the_ceiling(world, trained):
    from mdm.train.export import export

    results, loaded, recipe = world
    export(recipe)
    found = {}
    for case in ("drawn", "reconstruction"):
        samples = run_of(loaded, case).evaluations[0].samples
        assert loaded.recipe(samples).autoencoder in loaded.parents(samples)
        folder = make(results, loaded, samples)
        generate(folder / "recipe.json")
        found[case] = read_array(folder / "images.npz", "images_32"), read_json(folder / "manifest.json")
    # What is decoded from real pictures is theirs as well: of others, no batch of a killed job is taken over.
    assert found["drawn"][1]["weights_hash"] != found["reconstruction"][1]["weights_hash"]
    assert all(pictures.shape == (8, 32, 32, 3) for pictures, _ in found.values())
    assert (
        found["drawn"][1]["network_evaluations"] == 8 * 3 * 2 and found["reconstruction"][1]["network_evaluations"] == 0
    )
    clean, coder = pixels_of(world, "scenes-new", 8), open_coder(folder_of(world, "autoencoder"))
    assert np.array_equal(found["reconstruction"][0], to_bytes(coder.decode(coder.encode(clean)[:, 0])))
    other = to_bytes(clean).astype(float)
    distances = {case: np.abs(pictures - other).mean() for case, (pictures, _) in found.items()}
    assert distances["reconstruction"] < distances["drawn"]


def test_numbers_of_autoencoders_and_losses_on_codes_have_names_of_their_own(world, trained):
    from mdm.train.export import export

    results, loaded, recipe = world
    if not recipe.with_name("manifest.json").exists():
        export(recipe)
    rows = {row.metric: row for row in collect.collect(loaded, results)[0] if row.run == "latent=drawn"}
    said = read_json(folder_of(world, "autoencoder") / "autoencoder.json")["metrics"][0]
    assert (rows["autoencoder_psnr"].value, rows["autoencoder_psnr"].low) == (said["value"], said["low"])
    assert rows["autoencoder_parameters"].value == arithmetic.parameters(AutoencoderNetwork(**CODES))
    # The arithmetic of its own training is no part of that of the run, and stands beside it.
    spent = 3200 * arithmetic.step_gigaflops(AutoencoderNetwork(**CODES))
    assert rows["autoencoder_gigaflops"].value == pytest.approx(spent, rel=1e-4)
    table = cost_table(Evidence(loaded, list(rows.values())), results)
    told = next(row for row in table.rows if row["run"].text == "latent=drawn")
    assert told["autoencoder_gigaflops"].text == large(spent) and told["autoencoder_parameters"]
    titles = [column.title for column in table.columns]
    assert describe("autoencoder_gigaflops").title in titles and describe("low_psnr").title not in titles
    assert 0 < rows["validation_loss_codes_8"].value < 5 and "validation_loss_8" not in rows
    assert describe("validation_loss_codes_8").title == "Validation loss (codes 8)"
    assert describe("autoencoder_psnr").better == "higher"
    line = plan.Estimate(loaded, results).line(loaded.of_kind("autoencoder")[0])
    assert (line.status, line.left_seconds) == ("done", 0.0) and line.seconds > 0


def test_a_study_names_what_latent_runs_are_made_from_and_shares_it(world):
    _, loaded, _ = world
    drawn, real = run_of(loaded), run_of(loaded, "reconstruction")
    assert drawn.stages == real.stages and drawn.evaluations[0].samples != real.evaluations[0].samples
    assert drawn.stages[0].resolutions == (32,)
    recipe = loaded.recipe(drawn.stages[0].artifact)
    assert recipe.sizes == (8,) and recipe.drawn == (32,) and recipe.model.levels[0].codes == 4
    assert loaded.recipe(drawn.evaluations[0].samples).sample.threshold == "none"
    assert loaded.recipe(drawn.evaluations[0].features).resolution == 32
    assert drawn.evaluations[0].reference == loaded.runs[0].evaluations[0].reference
    (codes,) = (r for r in loaded.of_kind("latents") if "train" in r)
    assert loaded.shard_jobs(codes) == ["00000-00001", "00002-00002"]
    assert not study.load("quick").of_kind("autoencoder", "latents")


def test_the_plan_counts_training_encoding_and_decoding(world, tmp_path):
    _, loaded, _ = world
    lines = plan.Plan(loaded, tmp_path, plan.Throughput(1.0)).lines
    network = AutoencoderNetwork(**OVERRIDES["autoencoders"]["tiny-f4"]["network"])
    forth, back = (arithmetic.gigaflops(network, half) for half in ("encoder", "decoder"))
    by_kind = {ref: line for ref, line in lines.items() if ref.startswith(("autoencoder/", "latents/"))}
    assert len(by_kind) == 3
    (whole,) = (line for ref, line in by_kind.items() if ref.startswith("autoencoder/"))
    assert whole.seconds == pytest.approx(3200 * 3 * (forth + back) + 96 * forth + 32 * (2 * forth + back))
    (codes,) = (line for ref, line in by_kind.items() if "scenes-train" in ref)
    assert codes.seconds == pytest.approx(96 * forth) and codes.left_slices == codes.slices == 2
    assert codes.bytes == 96 * 2 * 8 * 8 * 4 * 2
    real = lines[run_of(loaded, "reconstruction").evaluations[0].samples]
    assert real.seconds == pytest.approx(8 * (forth + back))
    text = plan.render(loaded, tmp_path)
    assert "latent=drawn #0              autoencoder" in text and "shared" in text


def test_the_plan_says_what_makes_jobs_of_latent_diffusion_shorter(tmp_path):
    entry = {**OVERRIDES["autoencoders"]["tiny-f4"], "resources": {"gpus": 1, "minutes": 1}}
    text = plan.render(load(autoencoders={"tiny-f4": entry}, seconds_per_gigaflop=1000.0), tmp_path)
    lines = [line.partition(": ")[::2] for line in text.splitlines() if "a job takes" in line]
    remedies = {ref.partition("/")[0]: said.rpartition("; ")[2] for ref, said in lines}
    assert remedies["latents"] == "write a smaller shards_per_job or more minutes"
    assert remedies["autoencoder"] == "write more minutes"


SET = "ablations.latent.set."
LEVELS_16 = {16: {"channels": [32], "resnets": [1], "attention": [1], "norm_groups": 16}}
BAD = {
    "unknown": ({SET + "autoencoder": "tiny-f8"}, "no 'tiny-f8' under `autoencoders`; did you mean 'tiny-f4'"),
    "side": (
        {SET + "stages": {"z16": {"resolutions": [16], "num_images": 128}}},
        "32 px / factor 4 = 8 of a picture; write resolutions: [8]",
    ),
    "levels": ({SET + "stages": {"z": {"resolutions": [8, 16], "num_images": 128}}}, "codes have one level"),
    "divisible": (
        {"autoencoders.tiny-f4.network": {"resolution": 32, "factor": 5}},
        "resolution 32 is not a multiple of factor 5",
    ),
    "data": (
        {
            "autoencoders.tiny-f4.network": {"resolution": 64}, SET + "model.levels": LEVELS_16,
            SET + "stages": {"z": {"resolutions": [16], "num_images": 128}},
        },
        "works at 64 px, but data.scenes-",
    ),
    "threshold": ({SET + "sample.threshold": "dynamic"}, "latent codes have no range"),
    "karras": (
        {SET + "sample.sampler": "karras", SET + "sample.threshold": "none", SET + "diffusion.parameterisation": "edm"},
        "karras draws pictures, not codes",
    ),
    "excess": ({"excess": {"num_images": 8}}, "trains on latent codes; leave it out"),
    "audit": (
        {"audit": {"metrics": ["loss_gap"], "held_out": "scenes-new"}}, "loss_gap: they ask networks about pictures",
    ),
    "real without codes": ({"base.sample.latents": "real"}, "needs a run with an autoencoder"),
    "own codes": ({"base.model.levels.8.codes": 4}, "codes follows from the autoencoder; leave it out"),
    "dct": ({"base.train.decode": "dct"}, "train.decode dct has no effect on codes"),
    "pickle": (
        {"autoencoders.tiny-f4": {"data": "scenes-train", "test": "scenes-new", "network": KL_TINY,
                                  "weights": {"path": "model.ckpt", "sha256": None}}},
        "never opened; convert it to safetensors",
    ),
    "both": (
        {"autoencoders.tiny-f4": {"data": "scenes-train", "test": "scenes-new", "network": KL_TINY,
                                  "weights": {"path": "v.safetensors", "sha256": None}, "settings": {"num_images": 8}}},
        "have no effect beside weights",
    ),
    "weights of the small one": (
        {"autoencoders.tiny-f4": {"data": "scenes-train", "test": "scenes-new",
                                  "weights": {"path": "v.safetensors", "sha256": None}}},
        "weights need network: {network: kl",
    ),
    "setting": ({"autoencoders.tiny-f4.settings": {"lpips": 1.0}}, "unknown key 'lpips'"),
    "nothing compared": ({"autoencoders.tiny-f4.settings": {"l1": 0, "mse": 0}}, "nothing would teach it"),
    "kl factor": (
        {"autoencoders.tiny-f4.network": {"network": "kl", "channels": [32, 64], "factor": 4}}, "write factor: 2",
    ),
    "claim": (
        {"claims.ceiling": {"statement": "s", "source": "s", "expect": 'autoencoder_psnr["base"] > 30'}},
        "'base' has no autoencoder",
    ),
    "loss": (
        {"claims.ceiling": {"statement": "s", "source": "s", "expect": 'validation_loss_32["latent=drawn"] < 1'}},
        "trained on codes, whose losses compare with no other",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_when_the_study_is_read(name):
    changes, said = BAD[name]
    with pytest.raises(StudyError) as refused:
        load(**changes)
    assert said in str(refused.value)


def test_given_weights_are_files_from_outside():
    entry = {
        "data": "scenes-train", "test": "scenes-new", "network": {**KL_TINY, "factor": 2},
        "weights": {"path": "vae.safetensors", "sha256": "0" * 64},
    }  # fmt: skip
    stages = {"z16": {"resolutions": [16], "num_images": 128}}
    loaded = load(**{"autoencoders": {"tiny-f4": entry}, SET + "stages": stages, SET + "model.levels": LEVELS_16})
    (file,) = external_files(loaded)
    assert (file.path, file.sha256, file.needed_by) == (Path("vae.safetensors"), "0" * 64, "autoencoder tiny-f4")
    recipe = loaded.recipe(loaded.of_kind("autoencoder")[0])
    assert recipe.fit is None and json.loads(loaded.recipe_text(loaded.of_kind("autoencoder")[0]))["fit"] is None


def test_codes_depend_on_the_autoencoder_and_nothing_else_of_a_run(world):
    _, loaded, _ = world
    other = load(**{"base.train.learning_rate": 1e-3})
    assert other.of_kind("latents", "autoencoder") == loaded.of_kind("latents", "autoencoder")
    assert run_of(other).stages[0].artifact != run_of(loaded).stages[0].artifact
