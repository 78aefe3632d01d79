"""Reading a study file: safe YAML, overrides, and errors that say where and what to write instead."""

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mdm.config import StudyConfig, StudyError, nearest
from mdm.config.base import parse

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "config" / "studies"
LITERATURE = ROOT / "config" / "literature.csv"


class _UniqueKeys(yaml.SafeLoader):
    """YAML where a key written twice is an error (plain YAML silently keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor` may be overridden: that is its point
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise StudyError(f"line {key_node.start_mark.line + 1}: key '{key}' is written twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def find_study(name: str) -> Path:
    """Return the file of a study given by name (config/studies) or by path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else STUDIES / f"{name}.yaml"
    if not path.is_file():
        known = [p.stem for p in STUDIES.glob("*.yaml")]
        raise StudyError(f"there is no study '{name}' ({path} is not a file); {nearest(name, known)}")
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # a SafeLoader: plain data only
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is not valid YAML: {error}") from None
    except StudyError as error:
        raise StudyError(f"{path}, {error}") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path} must hold a mapping (title: ..., base: ...), not {type(content).__name__}")
    return content


def read_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Parse what follows each --set: KEY=VALUE, the value as in a study file, or several as JSON: {"a.b": 1}."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        try:
            if word.lstrip().startswith("{"):
                found.update(json.loads(word))
            elif key.strip() and equals:
                found[key.strip()] = yaml.load(value, Loader=_UniqueKeys)
            else:
                raise StudyError(f"--set {word!r} has no value or no key; write --set base.sample.guidance=6.0")
        except json.JSONDecodeError as error:
            raise StudyError(f"--set {word!r} is not JSON ({error}); write --set '{{\"a.b\": 1}}'") from None
        except yaml.YAMLError as error:
            raise StudyError(f"--set {word!r}: the value is not valid YAML: {error}") from None
    return found


def assign(tree: dict[str, Any], dotted: str, value: Any) -> Any:
    """Set tree[a][b][c] = value for the path 'a.b.c', in place; the value that stood there is returned."""
    *parents, last = dotted.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        node = node.setdefault(_key(node, part), {})
        if not isinstance(node, dict):
            raise StudyError(f"'{dotted}': '{'.'.join(parents[: depth + 1])}' is a value, not a section")
    key = _key(node, last)
    previous, node[key] = node.get(key), copy.deepcopy(value)
    return previous


def _key(node: dict[Any, Any], part: str) -> Any:
    """Return an int where a section's keys are resolutions of levels, else the word."""
    return int(part) if part.isdigit() and any(isinstance(key, int) for key in node) else part


def read_study(name: str, overrides: dict[str, Any]) -> tuple[Path, dict[str, Any], StudyConfig]:
    """Return path, raw content (overrides applied) and validated configuration of a study."""
    path = find_study(name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", path.stem):
        raise StudyError(f"{path}: the file's name names folders too; write letters, digits, '.', '_' and '-' only")
    raw = read_yaml(path)
    for dotted, value in overrides.items():
        assign(raw, dotted, value)
    return path, raw, parse(StudyConfig, raw, path.name)


def typed(value: Any) -> Any:
    """Snakemake reads nested values of --config as strings; numbers, lists and null become themselves again."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return read if read is None or isinstance(read, bool | int | float) else value
