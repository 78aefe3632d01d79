"""`mdm grow`: a deeper nest around trained weights, with the proof that these are still what they were."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mdm.config import ModelConfig, SongConfig, StudyError, nearest
from mdm.files.atomic import ArtifactError, refuse_overwriting
from mdm.files.hashes import sha256_file
from mdm.files.weights import load_weights, read_meta, save_weights, state_hash
from mdm.model.checkpoints import INNER, grow, inner_state
from mdm.model.convert import OURS, THEIRS, WIDENED, configuration
from mdm.model.presets import named


def grow_file(path: Path, model: str, out: Path, seed: int = 0, force: bool = False) -> None:
    """Write weights of the configuration `model` around those in `path`; print what is old and what is fresh."""
    if out.suffix != OURS:
        raise StudyError(f"--out {out}: write a name that ends with {OURS}; `mdm convert` makes other files of it")
    if path.suffix == THEIRS:
        raise StudyError(f"{path} is a file of the reference; make {path.stem}{OURS} of it by `mdm convert` first")
    if not path.is_file():
        beside = [p.name for p in path.parent.glob(f"*{OURS}")] if path.parent.is_dir() else []
        raise StudyError(f"there is no file {path}; " + (nearest(path.name, beside) if beside else "check the path"))
    refuse_overwriting(out, force)
    parent, parent_config, config = load_weights(path), configuration(path, read_meta(path)), named(model)
    if isinstance(parent_config, SongConfig) or isinstance(config, SongConfig):
        raise StudyError("networks of the family song (DDPM++, NCSN++) have one level and do not grow")
    added = len(config.levels) - len(parent_config.levels)
    if added == 0:
        raise StudyError(f"{path} already has the {len(config.levels)} levels of {model}; there is nothing to add")
    if half := {str(tensor.dtype).removeprefix("torch.") for tensor in parent.values() if tensor.dtype in WIDENED}:
        kinds = " and ".join(sorted(half))
        raise StudyError(f"{path} holds {kinds} weights; make float32 of them by `mdm convert` first")
    before = state_hash(parent)
    state = grow(parent, parent_config, config, seed)
    grown_from = {"file": path.name, "sha256": sha256_file(path), "weights": before, "seed": seed}
    save_weights(out, state, {"model": config.model_dump(mode="json"), "grown_from": grown_from})
    notes = [*_fresh(state, config, added), *_changed(parent_config, config)]
    del parent, state  # a network of gigabytes each, and the proof reads a third
    print("\n".join([*_proof(before, load_weights(out), added, out), *notes]))


def _proof(before: str, written: Mapping[str, Tensor], added: int, out: Path) -> list[str]:
    """The hash of the inner weights before, and after in the file that was written."""
    inner = inner_state(written, added)
    after = state_hash(inner)
    if after != before:
        raise ArtifactError(f"{out}: the inner weights have hash {after}, the parent's have {before}; delete this file")
    return [f"inner weights before {before}", f"inner weights after  {after} ({_size(inner)}): equal"]


def _fresh(state: Mapping[str, Tensor], config: ModelConfig, added: int) -> list[str]:
    """One line for each level that was added, outermost first, and one for the whole."""
    lines = []
    for depth, level in zip(range(added), reversed(config.levels), strict=False):
        own = {name: tensor for name, tensor in inner_state(state, depth).items() if not name.startswith(INNER)}
        parts = Counter(name.partition(".")[0] for name in own)
        listing = ", ".join(f"{part} {count}" for part, count in parts.items())
        lines.append(f"fresh level {level.resolution}: {_size(own)} ({listing})")
    return [*lines, f"whole network: {_size(state)}"]


def _changed(parent: ModelConfig, config: ModelConfig) -> list[str]:
    """Input normalisation holds no weights and may change from stage to stage, but changes what the weights predict."""
    return [
        f"note: level {new.resolution} had normalize_input {old.normalize_input} and now has {new.normalize_input}: "
        "with the same weights, this level and those inside it predict something else than before"
        for old, new in zip(parent.levels, config.levels, strict=False)
        if old.normalize_input != new.normalize_input
    ]


def _size(state: Mapping[str, Tensor]) -> str:
    return f"{len(state)} tensors, {sum(tensor.numel() for tensor in state.values()):,} parameters"
