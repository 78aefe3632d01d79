"""Text: frozen, a pure function of the seed, and never silently random where weights were asked for."""

import pytest
import torch
from caption_cache import load_encoder, write_cache

from mdm.config import StudyError
from mdm.config.text import ENCODER_VERSION, T5Settings
from mdm.data.sources.scenes.language import vocabulary
from mdm.data.text import cache
from mdm.data.text.encoder import EOS, SPARE_IDS, WordTokenizer
from mdm.files.artifact import digest
from mdm.files.atomic import ArtifactError, write_atomic, write_json
from mdm.files.hashes import sha256_file

TINY = {"name": "tiny-t5", "settings": {"channels": 32, "layers": 2, "heads": 4, "seed": 0, "max_tokens": 16}}
CAPTIONS = ["a red circle left of a blue square", "two green stars", ""]


@pytest.fixture(scope="module")
def tiny():
    return load_encoder(TINY)


def test_tokens():
    words = WordTokenizer()
    assert words.size == 2 + len({*vocabulary(), ",", "."}) + SPARE_IDS
    assert words.ids("A red, circle", 16) == words.ids("a red , circle", 16)
    assert words.ids("", 16) == [EOS] and words.ids("a " * 50, 8)[-1] == EOS and len(words.ids("a " * 50, 8)) == 8
    spare = words.ids("photosynthesis", 16)[0]
    assert words.size - SPARE_IDS <= spare < words.size and spare == words.ids("Photosynthesis", 16)[0]


def test_features_are_a_pure_function_of_the_seed(tiny):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = load_encoder(TINY)
    assert torch.equal(torch.get_rng_state(), state), "building the encoder moved the global generator"
    assert torch.equal(again.encode(CAPTIONS)[0], tiny.encode(CAPTIONS)[0])
    other = load_encoder({**TINY, "settings": {**TINY["settings"], "seed": 1}})
    assert not torch.allclose(other.encode(CAPTIONS)[0], tiny.encode(CAPTIONS)[0], atol=0.1)


def test_features_are_masked_and_of_unit_scale(tiny):
    features, mask = tiny.encode(CAPTIONS)
    assert features.shape == (3, 9, 32) and mask.sum(1).tolist() == [9, 4, 1]
    assert (features[mask == 0] == 0).all()
    assert 0.8 < features[mask == 1].std() < 1.2
    assert not any(weight.requires_grad for weight in tiny.model.parameters())


def test_features_do_not_depend_on_the_batch(tiny):
    together, alone = tiny.encode(CAPTIONS)[0], tiny.encode(CAPTIONS[1:2])[0]
    torch.testing.assert_close(together[1:2, :4], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_word_knows_its_neighbours(seed):
    """Which colour belongs to which shape, and which group stands first, must be in the features."""
    some = load_encoder({"name": "tiny-t5", "settings": {"seed": seed}})
    one, two, three = some.encode(
        [
            "a red circle left of a blue square",
            "a blue square left of a red circle",
            "a blue circle left of a red square",
        ]
    )[0]
    # 0.17 to 0.27 measured; without favoured neighbours it was 2e-7.
    assert (one[2] - three[2]).norm() > 0.1 * one[2].norm()
    assert (one[2] - two[7]).norm() > 0.1 * one[2].norm()


def test_golden():
    """If this fails on purpose, raise ENCODER_VERSION: cached embeddings are no longer what a recipe says."""
    features, _ = load_encoder(TINY).encode(["a red circle"])
    assert ENCODER_VERSION == 2
    torch.testing.assert_close(features[0, 1, :4], torch.tensor(GOLDEN_FEATURES), atol=1e-3, rtol=0)


GOLDEN_FEATURES = [-0.771, 0.0854, -1.0504, 0.7982]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "tiny-t5", "settings": {"chanels": 8}}, "did you mean 'channels'"),
        ({"name": "tiny-t5", "settings": {"channels": 9}}, "cannot be shared by 4 heads"),
        ({"name": "tiny-t5", "settings": {"channels": 8}, "channels": 16}, "write channels: 8"),
        ({"name": "t5", "settings": {"path": "x", "sha256": "y"}}, "sha256"),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(StudyError, match=message):
        load_encoder(spec)


def test_channels_of_the_study_are_the_default():
    assert load_encoder({"name": "tiny-t5", "settings": {"channels": 16}}).channels == 16


def real_t5(folder):
    """A folder like that of published weights, with a tiny network and tokenizer inside."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=8, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4)
    T5EncoderModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "red": 4}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return t5_spec(folder)


def t5_spec(folder):
    names = ("config.json", "model.safetensors", "tokenizer.json")
    hashes = {name: sha256_file(folder / name) for name in names}
    return {"name": "t5", "settings": {"path": str(folder), "sha256": hashes, "max_tokens": 4}}


def test_real_weights_are_loaded(tmp_path):
    from transformers import T5EncoderModel

    spec = real_t5(tmp_path)
    features, mask = load_encoder(spec).encode(["a red", "red red red red red"])
    assert features.shape == (2, 4, 16) and mask.sum(1).tolist() == [3, 4]
    model = T5EncoderModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(features[:1, :3], model(torch.tensor([[3, 4, 1]])).last_hidden_state)


def test_missing_tensors_are_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    real_t5(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("encoder.block.0.layer.0.SelfAttention.q.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"lacks tensors.*SelfAttention\.q"):
        load_encoder(t5_spec(tmp_path))


def test_weights_that_the_study_does_not_name_are_refused(tmp_path):
    spec = real_t5(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(StudyError, match=r"also has model-00001.*model\.safetensors\.index\.json"):
        load_encoder(spec)


def test_large_encoders_may_compute_and_store_otherwise(tmp_path):
    spec = real_t5(tmp_path)
    exact = load_encoder(spec).encode(["a red"])[0]
    spec["settings"] |= {"precision": "bf16", "stored": "bfloat16"}
    coarse = load_encoder(spec)
    assert coarse.stored == torch.bfloat16 and next(coarse.model.parameters()).dtype == torch.bfloat16
    torch.testing.assert_close(coarse.encode(["a red"])[0], exact, atol=0.1, rtol=0.05)
    assert T5Settings(**spec["settings"]).model_dump() == spec["settings"]
    plain = {key: value for key, value in spec["settings"].items() if key not in ("precision", "stored")}
    assert T5Settings(**plain).model_dump() == plain, "a recipe without these choices must keep its digest"


def test_wrong_or_missing_files_are_errors(tmp_path):
    spec = real_t5(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match="the study says"):
        load_encoder(spec)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"has no tokenizer\.json"):
        load_encoder(spec)
    with pytest.raises(ArtifactError, match="there is no folder"):
        load_encoder({**spec, "settings": {**spec["settings"], "path": str(tmp_path / "no")}})
    only = {"config.json": "0" * 64}
    with pytest.raises(StudyError, match=r"must name tokenizer\.json"):
        load_encoder({**spec, "settings": {**spec["settings"], "sha256": only}})


def test_cache_returns_what_the_encoder_gave(tiny, tmp_path):
    counts = write_cache(tmp_path, [*CAPTIONS, CAPTIONS[0], 'say "ü"'], tiny)
    assert {k: counts[k] for k in ("captions", "tokens", "channels")} == {"captions": 4, "tokens": 19, "channels": 32}
    embeddings = cache.Embeddings(tmp_path)
    features, mask = embeddings.lookup(CAPTIONS)
    wanted, wanted_mask = tiny.encode(CAPTIONS)
    torch.testing.assert_close(features, wanted, atol=2e-3, rtol=2e-3)
    assert torch.equal(mask, wanted_mask) and features.dtype == torch.float32 and len(embeddings) == 4
    assert embeddings.lookup([""])[0].shape == (1, 9, 32) and 'say "ü"' in embeddings


def test_cache_is_reproducible(tiny, tmp_path):
    for name, captions in (("a", CAPTIONS), ("b", CAPTIONS[::-1])):
        write_cache(tmp_path / name, captions, tiny)
    for file in ("lookup.safetensors", "shards/00000.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_missing_caption_is_named(tiny, tmp_path):
    write_cache(tmp_path, CAPTIONS, tiny)
    with pytest.raises(ArtifactError, match="not 'a purple cow'"):
        cache.Embeddings(tmp_path).lookup(["a purple cow"])
    with pytest.raises(ArtifactError, match="mdm embed"):
        cache.Embeddings(tmp_path / "nothing")


def test_embed_reads_the_data_sets(tmp_path):
    for name in ("one", "two"):
        write_atomic(tmp_path / f"data/{name}/index.tsv", f"key\tcaption\tlabels\n0\ta {name} thing\t{{}}\n")
    recipe = {
        "kind": "text",
        "encoder": {**TINY, "channels": 32},
        "data": ["data/one", "data/two"],
        "captions": ["negative"],
    }
    path = tmp_path / "text" / f"t-{digest(recipe)}" / "recipe.json"
    write_json(path, recipe)
    manifest = cache.embed(path)
    assert manifest["captions"] == 4 and len(manifest["sha256"]) == 64
    assert [shard["sha256"] for shard in manifest["shards"]] == [sha256_file(path.parent / "shards/00000.safetensors")]
    embeddings = cache.Embeddings(path.parent)
    assert all(text in embeddings for text in ("a one thing", "a two thing", "negative", ""))
