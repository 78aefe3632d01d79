"""The rooms of mdm/ depend on one another in one direction, and every room keeps to what it may import.

The order stands here once. Imports are read with `ast`, those inside functions too; imports under `if TYPE_CHECKING:`
count as well, because a name in a signature is knowledge of the other room.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the ground up. A room imports from rooms of lower floors, and within itself without a circle.
FLOORS = (
    {"files", "config"},
    {"data", "model", "diffusion"},
    {"train", "evaluate"},
    {"study"},
    {"report"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS, start=1) for room in rooms}
# Inner rooms that stand in a row as well.
INNER = {
    "data": ("rows", "pictures", "fetch", "sources", "shards", "text", "batches"),
    "study": ("", "stage_files", "cost", "run"),
    "report": ("", "tables", "figures", "page"),
}
# What a whole room must do without: whoever imports it would wait for it, or could not have it.
FORBIDDEN = {
    "files": {"snakemake", "transformers"},
    "config": {"torch", "numpy", "snakemake"},
    "diffusion": {"snakemake", "transformers"},
    "model": {"snakemake", "transformers"},
    "report": {"torch", "torchvision", "transformers", "snakemake"},
}
NO_ROOM = {"__init__"}  # what `import mdm` does


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """What a file imports, dotted; of the package itself by module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & known.keys()) or {node.module}
            found |= {node.module} if inner - known.keys() else set()
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def advice(module: str, imported: str) -> str:
    """Where the importing line belongs."""
    own, other = FLOOR[room(module)], FLOOR.get(room(imported), "none")
    return (
        f"{module} (floor {own}) imports {imported} (floor {other}): rooms import only from below. Move what {module} "
        f"needs down into a room of floor {own - 1} or less, or move {module} up into mdm/{room(imported)}/"
    )


def upward(package: Path) -> list[str]:
    """Sentences about every import of a room on the same or a higher floor."""
    known = modules(package)
    said = []
    for module, path in known.items():
        if room(module) in NO_ROOM:
            continue
        if room(module) not in FLOOR:
            rooms = ", ".join(sorted(FLOOR))
            said.append(f"{module} stands in no room of mdm/; move it into one of {rooms}, by what it imports")
            continue
        for imported in imports(path, known) & known.keys():
            other = room(imported)
            if other not in NO_ROOM and other != room(module) and FLOOR.get(other, 99) >= FLOOR[room(module)]:
                said.append(advice(module, imported))
    return said


def circle(package: Path) -> list[str]:
    """The modules of a circle of imports, in order; nothing if there is none."""
    known = modules(package)
    arrows = {module: sorted(imports(path, known) & known.keys() - {module}) for module, path in known.items()}
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for imported in arrows[module]:
            if found := walk(imported, [*way, module]):
                return found
        done.add(module)
        return []

    return next((found for module in arrows if (found := walk(module, []))), [])


def inner_upward(package: Path) -> list[str]:
    """Sentences about imports against the row of inner rooms."""
    known, said = modules(package), []
    for module, path in known.items():
        row = INNER.get(room(module))
        if row is None:
            continue
        for imported in imports(path, known) & known.keys():
            if room(imported) == room(module) and _place(imported, row) > _place(module, row):
                order = " < ".join(filter(None, row))
                said.append(
                    f"{module} imports {imported}, but the inner rooms of mdm/{room(module)} stand in a row: {order}"
                )
    return said


def _place(module: str, row: tuple[str, ...]) -> int:
    parts = module.split(".")
    inner = parts[2] if len(parts) > 2 else ""
    return row.index(inner) if inner in row else 0


def forbidden(package: Path) -> list[str]:
    """Sentences about imports of packages that a room does without, straight or through a module of a lower room."""
    known, said = modules(package), []
    for module, path in known.items():
        for name in imports(path, known):
            if name.split(".")[0] in FORBIDDEN.get(room(module), ()):
                said.append(f"{module} imports {name}, and mdm/{room(module)} must do without it")
    return said


def test_rooms_import_only_from_below():
    assert not upward(ROOT / "mdm"), "\n".join(upward(ROOT / "mdm"))


def test_no_modules_import_each_other():
    assert not circle(ROOT / "mdm"), " -> ".join(circle(ROOT / "mdm"))


def test_inner_rooms_stand_in_a_row():
    assert not inner_upward(ROOT / "mdm"), "\n".join(inner_upward(ROOT / "mdm"))


def test_rooms_do_without_what_they_must():
    assert not forbidden(ROOT / "mdm"), "\n".join(forbidden(ROOT / "mdm"))


def test_the_workflow_asks_the_study_alone():
    for path in (ROOT / "workflow").rglob("*.smk"):
        lines = [line for line in path.read_text().splitlines() if line.startswith(("import mdm", "from mdm"))]
        wrong = [line for line in lines if not line.startswith(("from mdm import study", "from mdm.study"))]
        assert not wrong, f"{path.name}: {wrong}: rules ask mdm.study; put the question there"


def test_the_top_of_the_package_is_the_rooms_and_the_door():
    there = {path.name.removesuffix(".py") for path in (ROOT / "mdm").iterdir()} - {"__pycache__"}
    assert there - {"__init__", "__main__"} == FLOOR.keys() - {"__main__"}


@pytest.mark.parametrize(
    ("name", "line", "check", "message"),
    [
        ("mdm/data/new.py", "from mdm.train.loop import x", upward, "mdm.data.new (floor 2) imports mdm.train.loop"),
        ("mdm/new.py", "import json", upward, "mdm.new stands in no room of mdm/; move it into one of"),
        ("mdm/model/new.py", "def f():\n    import mdm.study.study", upward, "move mdm.model.new up into mdm/study/"),
        ("mdm/data/pictures/new.py", "from mdm.data.batches import loader", inner_upward, "stand in a row"),
        ("mdm/report/new.py", "def f():\n    import torch.nn", forbidden, "must do without it"),
    ],
)  # fmt: skip
def test_a_file_in_the_wrong_room_is_told_where_it_belongs(tmp_path, name, line, check, message):
    for path in ("mdm/train/loop.py", "mdm/study/study.py", "mdm/data/batches/loader.py", name):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(line if path == name else "")
    assert [said for said in check(tmp_path / "mdm") if message in said]


def test_functions_and_modules_can_be_read_at_once():
    for path in (ROOT / "mdm").rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 300, f"{path}: {len(text.splitlines())} lines; two subjects want two modules"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 40, f"{path}: {node.name} has {lines} lines; give a part of it a name of its own"


def test_a_circle_is_found(tmp_path):
    (tmp_path / "mdm").mkdir()
    (tmp_path / "mdm/a.py").write_text("def f():\n    from mdm import b")
    (tmp_path / "mdm/b.py").write_text("from mdm.a import f")
    assert circle(tmp_path / "mdm") in (["mdm.a", "mdm.b", "mdm.a"], ["mdm.b", "mdm.a", "mdm.b"])
