"""Tables in their three file forms, figures with fixed bytes, and the literature with its statuses."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import results_fixture as fixture
from PIL import Image

from mdm.files.atomic import ArtifactError
from mdm.report.collect import Artifacts, Row, read_rows
from mdm.report.evidence import Evidence, read_evidence
from mdm.report.figures import draw as figures
from mdm.report.figures import gallery, style
from mdm.report.figures import guidance as figure_guidance
from mdm.report.figures.training_curves import training
from mdm.report.quantity import Measurement, Quantity, over_seeds
from mdm.report.tables import instruments, tables
from mdm.report.tables.literature import read_literature
from mdm.report.tables.render import Cell, Column, Table, as_csv, as_latex, as_markdown, latex
from mdm.study import products as names


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory):
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path_factory.mktemp("tree"))
    return study, sources, read_evidence(study, sources.metrics_csv)


def build(tree, name: str) -> Table:
    study, sources, evidence = tree
    return tables.build(study, name, evidence, sources.results, sources.literature_csv)


def test_latex_escapes_everything_special() -> None:
    assert latex(r"a_b & 50% $x$ #1 {y} ~ ^ \ < >") == (
        r"a\_b \& 50\% \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"\textless{} \textgreater{}"
    )
    assert latex("→ Δ −1 ± 2\n") == r"$\rightarrow$ $\Delta$ $-$1 $\pm$ 2 "


def test_a_row_may_begin_with_a_bracket_in_latex() -> None:
    table = Table("t", "T", "c", [Column("a", "A")], [{"a": Cell("[x]")}, {"a": Cell("y")}])
    assert "\n    {}[x] \\\\\n" in as_latex(table)


def test_markdown_cells_cannot_break_out() -> None:
    table = Table("t", "T", "c", [Column("a", "A")], [{"a": Cell("x | <b>_y_</b>\nz")}])
    assert r"| x \| \<b\>\_y\_\</b\> z |" in as_markdown(table)


def test_csv_has_unrounded_values_with_bounds() -> None:
    table = Table("t", "T", "c", [Column("run", "Run"), Column("fd", "FD", True)],
                  [{"run": Cell("a"), "fd": Cell(quantity=Quantity(1 / 3, 0.25, 0.5, (0.3, 0.4)))},
                   {"run": Cell("b")}])  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert float(rows[0]["fd"]) == 1 / 3 and rows[0]["fd_low"] == "0.25" and rows[0]["fd_high"] == "0.5"
    assert float(rows[0]["fd_sd"]) == pytest.approx(0.0707, abs=1e-4) and rows[1]["fd"] == ""


def test_the_three_forms_to_the_byte() -> None:
    columns = [Column("run", "Run"), Column("fd", "FD ↓", True), Column("speed", "Speed", True)]
    rows = [
        {"run": Cell('a "b", c'), "fd": Cell(quantity=Quantity(1 / 3, 0.25, 0.5, (0.3, 0.4)), mark="better")},
        {"run": Cell("NA"), "fd": Cell(quantity=Quantity(265_763, 265_763, 265_763)), "speed": Cell("1e3")},
        {"run": Cell(""), "speed": Cell("12 k", Quantity(1e-12, -1e30, 12_000.0))},
    ]
    table = Table("main_1", "T", "c", columns, rows, ["50 % of it"])
    assert as_csv(table) == (
        "run,fd,fd_low,fd_high,fd_sd,speed,speed_low,speed_high,speed_sd\n"
        '"a ""b"", c",0.3333333333333333,0.25,0.5,0.07071067811865478,,,,\n'
        "NA,265763,265763,265763,,1e3,,,\n"
        ",,,,,1e-12,-1e+30,12000.0,\n"
    )
    assert as_markdown(table) == (
        "**T.** c\n\n| Run | FD ↓ | Speed |\n| --- | ---: | ---: |\n"
        '| a "b", c | 0.33 [0.25, 0.50] (better; 2 seeds, sd 0.071) | — |\n| NA | 265,763 | 1e3 |\n|  | — | 12 k |\n\n'
        "- 50 % of it\n"
    )
    assert as_latex(table).splitlines()[2:9] == [
        r"  \caption{c 50 \% of it}", r"  \label{tab:main-1}", r"  \begin{tabular}{lrr}", r"    \toprule",
        r"    Run & FD $\downarrow$ & Speed \\", r"    \midrule",
        r"    {}a ''b'', c & 0.33 [0.25, 0.50] (better; 2 seeds, sd 0.071) & --- \\",
    ]  # fmt: skip


def test_main_table_shows_intervals_seeds_gaps_and_frames(tree) -> None:
    table = build(tree, "main")
    by_run = {row["run"].text: row for row in table.rows}
    assert by_run["base"]["fd_judge"].seeds_note.startswith("3 seeds, sd")
    assert "[" in by_run["two-levels"]["fd_judge"].interval and not by_run["two-levels"]["fd_judge"].seeds_note
    assert table.cells(by_run["shared-noise"])[-1].text == "—"
    assert by_run["real pictures"]["fd_judge"].quantity.value == 3.1
    assert by_run["guessing"]["alignment"].quantity.value == pytest.approx(2.0)  # per cent


def test_ablation_table_says_better_worse_or_unclear(tree) -> None:
    table = build(tree, "ablation-training")
    marks = {row["run"].text: row["fd_judge_change"].mark for row in table.rows if "fd_judge_change" in row}
    assert marks == {"no-progressive": "worse"}
    assert table.row_classes == ["against", "run", "against", "run"]
    sampling = {row["run"].text: row for row in build(tree, "ablation-sampling").rows if "alignment_change" in row}
    assert sampling["guidance=6"]["alignment_change"].mark == "better"
    assert sampling["guidance=2"]["fd_judge_change"].mark == "unclear"


def test_one_training_is_never_better_or_worse(tree) -> None:
    """However far apart the pictures are: the difference is shown, without a mark."""
    for name, run in (("sampling", "guidance=1"), ("nesting", "two-levels")):
        table = build(tree, f"ablation-{name}")
        (row,) = [row for row in table.rows if row["run"].text == run]
        assert row["alignment_change"].quantity.value < 0 and row["alignment_change"].mark == ""
        assert "at least 3 trainings a side" in table.notes[0]
    assert "alignment_change" in row and not row["alignment_change"].seeds_note


@pytest.mark.parametrize(("trainings", "mark"), [(1, ""), (2, ""), (3, "better"), (5, "better")])
def test_a_mark_needs_three_trainings(trainings: int, mark: str) -> None:
    clear = over_seeds({seed: Measurement(-1.0, -1.1, -0.9) for seed in range(trainings)})
    assert tables.change_mark("fd_judge", clear) == mark
    assert tables.change_mark("alignment", clear) == mark.replace("better", "worse")
    assert tables.change_mark("parameters", clear) == ""


def test_a_mark_needs_no_common_seeds(tree) -> None:
    """Three trainings against three others are compared by Welch, and decide a claim: so they decide here."""
    study, _, evidence = tree
    rows = [replace(r, seed=r.seed + 10) if r.run == "no-progressive" else r for r in evidence.rows]
    cell = tables.delta_cell(Evidence(study, rows), "fd_judge", "no-progressive", "base", "zero-shot")
    assert cell.quantity.low > 0 and cell.mark == "worse"


def test_a_difference_is_taken_picture_by_picture_where_it_can_be(tree) -> None:
    study, _, evidence = tree
    paired = tables.delta_cell(evidence, "clip_score", "single-scale", "base", "zero-shot").quantity
    bare = Evidence(study, evidence.rows)
    apart = tables.delta_cell(bare, "clip_score", "single-scale", "base", "zero-shot").quantity
    assert len(paired.seeds) == 3 and paired.value == apart.value and paired.above < apart.above
    back = evidence.difference("clip_score", "base", "single-scale", "zero-shot")
    assert (back.low, back.high) == pytest.approx((-paired.high, -paired.low))
    assert "seed by seed and picture by picture" in build(tree, "ablation-nesting").caption


def test_tables_say_what_their_brackets_are_over(tree) -> None:
    study, _, evidence = tree
    assert tables.interval_note(evidence) == (
        "Brackets: 95 % interval over trainings and pictures, of the mean of 1 or 3 trainings (of one training: over "
        "its pictures alone)."
    )
    assert tables.interval_note(evidence) in build(tree, "main").notes
    assert tables.interval_note(evidence) in build(tree, "ablation-nesting").notes
    once = replace(study, runs=[run for run in study.runs if run.seed == 0])
    assert tables.interval_note(Evidence(once, [])) == (
        "Brackets: 95 % interval over the pictures of one training; other trainings would differ by more."
    )
    thrice = replace(study, runs=[run for run in study.runs if run.name == "base"])
    assert tables.interval_note(Evidence(thrice, [])).endswith("of the mean of 3 trainings.")


def test_settings_are_written_for_people_down_to_what_differs() -> None:
    base = {"a": {"resolutions": [8], "num_images": 4}, "b": {"resolutions": [8, 16], "num_images": 2}}
    own = {"b": {"resolutions": [8, 16], "num_images": 6}}
    assert tables.changed_settings({"stages": (base, own), "x.flag": (False, None)}) == {
        "stages.a": ("resolutions [8], num_images 4", "—"), "stages.b.num_images": ("2", "6"),
        "x.flag": ("false", "—"),
    }  # fmt: skip
    assert tables.settings_text({"x": (1, True)}) == "x: 1 → true" and tables.settings_text({}) == "—"


def test_cost_of_half_a_run_is_not_shown_as_a_cost(tree) -> None:
    rows = {row["run"].text: row for row in build(tree, "cost").rows}
    assert "train_seconds" not in rows["shared-noise"] and rows["shared-noise"]["device"].text == "not trained"
    assert rows["base"]["train_images"].shown == "96.0 k" and rows["base"]["train_images"].quantity.value == 96_000


def test_literature_keeps_its_status_beside_our_rows(tree) -> None:
    table = build(tree, "literature")
    status = {(row["model"].text, row["value"].shown): row["status"].text for row in table.rows}
    assert status["LDM-4", "3.60"] == "verified" and status["MDM (submission)", "6.62"] == "verified"
    assert status["MDM (camera-ready)", "3.51"] == "remembered" and status["ADM", "10.94"] == "value-verified"
    ours = [row for row, kind in zip(table.rows, table.row_classes, strict=True) if kind == "ours"]
    assert {row["status"].text for row in ours} == {"measured here"} and "NOT comparable" in table.caption
    assert next(row for row in ours if row["model"].text == "guidance=6")["guidance"].text == "6"


def test_literature_has_the_work_that_a_reader_of_today_asks_for() -> None:
    rows = {(row["model"].split(" ")[0], row["metric"]) for row in read_literature(fixture.LITERATURE)}
    asked = {"micro-diffusion": "FID-30K", "JiT-B/16": "FID-50K", "SiD2-B": "FID-50K", "PixelFlow": "FID-50K",
             "HDiT": "FID-50K"}  # fmt: skip
    assert {*asked.items(), ("MiniT2I", "GenEval"), ("MiniT2I", "DPG")} <= rows


def test_literature_refuses_an_unknown_status(tmp_path: Path) -> None:
    bad = tmp_path / "literature.csv"
    head = fixture.LITERATURE.read_text().splitlines()[0]
    bad.write_text(f"{head}\n1,a,b,,FID,1,me,certain\n")
    with pytest.raises(ArtifactError, match=r"literature\.csv:2: status 'certain'"):
        read_literature(bad)


def test_every_table_is_written_and_twice_the_same(tree, tmp_path: Path) -> None:
    study, sources, _ = tree
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        tables.write(study, sources.metrics_csv, sources.results, sources.literature_csv, folder)
    files = sorted(p.name for p in folders[0].iterdir())
    assert files == sorted(f"{n}.{e}" for n in names.table_names(study) for e in ("csv", "md", "tex"))
    assert all((folders[0] / f).read_bytes() == (folders[1] / f).read_bytes() for f in files)
    assert all("\\toprule" in p.read_text() for p in folders[0].glob("*.tex"))


def test_every_figure_is_written_and_twice_the_same(tree, tmp_path: Path) -> None:
    study, sources, _ = tree
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        for name in names.figure_names(study):
            figures.write(study, name, sources.metrics_csv, sources.results, folder)
    files = sorted(p.name for p in folders[0].iterdir())
    assert files == sorted(names.figure_files(study))
    assert all((folders[0] / f).read_bytes() == (folders[1] / f).read_bytes() for f in files)
    for path in folders[0].glob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "RGBA" and image.getpixel((0, image.height - 1))[3] == 0  # transparent ground
    assert "dc:date" not in (folders[0] / "guidance.svg").read_text()


def test_every_figure_has_a_module_of_its_own(tree) -> None:
    modules = {name: names.figure_module(name) for name in names.figure_names(tree[0])}
    assert all(module.exists() and module.parent == Path(figures.__file__).parent for module in modules.values())
    assert modules["ablation-nesting"].name == "ablation.py" and modules["samples-base"].name == "gallery.py"
    assert modules["training-curves"].name == "training_curves.py"


def test_numbers_of_too_few_pictures_are_marked(tree) -> None:
    """The fixture has 256 pictures: enough for shares and CLIP scores, too few for a Fréchet distance."""
    study, sources, _ = tree
    evidence, artifacts = read_evidence(study, sources.metrics_csv), Artifacts(sources.results)
    notes = instruments.survey(evidence, artifacts)["notes"]
    marked = [note for note in notes if "Here there are FEWER: 256." in note]
    assert marked and all("sensible from 500 pictures" in note for note in marked)
    assert sum("sensible from 100 pictures" in note for note in notes) > 1
    assert sum("with their own captions" in note for note in notes) == 1


def test_titles_do_not_reach_tables_or_figures(tree, tmp_path: Path) -> None:
    _, sources, _ = tree
    renamed = fixture.make_study("Another title")
    figures.write(renamed, "guidance", sources.metrics_csv, sources.results, tmp_path)
    assert "Another" not in (tmp_path / "guidance.svg").read_text()


def test_a_study_without_a_judge_promises_nothing_that_a_judge_measures(tmp_path: Path) -> None:
    study = fixture.make_study(judge=None)
    sources = fixture.write_tree(study, tmp_path)
    assert not {"alignment", "literature"} & {*names.table_names(study), *names.figure_names(study)}
    written = tables.write(study, sources.metrics_csv, sources.results, sources.literature_csv, tmp_path / "tables")
    main = (tmp_path / "tables" / "main.md").read_text()
    assert written == names.table_names(study) and "CLIP score" in main and "real pictures" in main
    assert "Fréchet" not in main and "Alignment" not in main
    unmeasured = fixture.make_study(judge=None, clip=None)
    assert "guidance" not in names.figure_names(unmeasured) and "main" in names.table_names(unmeasured)


def test_guidance_is_drawn_with_the_metrics_that_are_there(tmp_path: Path) -> None:
    def axes(**instruments: None) -> tuple[list[figure_guidance.Point], str, str]:
        study = fixture.make_study(**instruments)
        sources = fixture.write_tree(study, tmp_path / "-".join(["x", *instruments]))
        evidence, artifacts = read_evidence(study, sources.metrics_csv), Artifacts(sources.results)
        pair = figure_guidance.metric_axes(evidence, evidence.protocol())
        points = figure_guidance.points_by_network(evidence, artifacts, evidence.protocol(), pair)["base"]
        with style.drawing("guidance"):
            words = figure_guidance.draw(evidence, artifacts).axes[0].get_xlabel()
        return points, words, figure_guidance.summary(evidence, artifacts)

    points, words, said = axes(judge=None)
    assert [(p.weight, p.x.value) for p in points] == [(1, 1), (2, 2), (4, 4), (6, 6)] and words == "Guidance weight"
    assert points[-1].y.value == pytest.approx(32.6, abs=0.2) and "CLIP score" in said and "Fréchet" not in said
    assert "highest at weight 6" in said
    points, words, said = axes()
    assert points[0].x.value == pytest.approx(21.4, abs=0.5) and words.startswith("Fréchet distance")
    assert "Fréchet distance (judge) lowest at 4" in said


def test_figures_without_data_say_so(tmp_path: Path) -> None:
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path, absent=tuple(fixture.INVENTED))
    for name in names.figure_names(study):
        for path in figures.write(study, name, sources.metrics_csv, sources.results, tmp_path / "figures"):
            assert path.stat().st_size > 0
    assert "Nothing to draw yet" in (tmp_path / "figures" / "alignment.svg").read_text()
    with pytest.raises(ValueError, match="no figure 'nonsense'"):
        figures.write(study, "nonsense", sources.metrics_csv, sources.results, tmp_path)


def test_curves_join_stages_and_draw_a_shared_training_once(tree) -> None:
    _, sources, evidence = tree
    lines, kind = training(evidence, Artifacts(sources.results))
    assert kind == "validation loss"
    assert not [line for line in lines if line.label.startswith("guidance")]
    base = next(line for line in lines if (line.label, line.resolution, line.first_seed) == ("base", 64, True))
    assert base.images == sorted(base.images) and base.images[0] > 32_000 and base.images[-1] == 96_000
    assert base.seconds == sorted(base.seconds)


def test_training_loss_is_drawn_when_a_stage_has_no_validation(tmp_path: Path) -> None:
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path)
    path = sources.results / study.runs[0].stages[0].artifact / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.pop("validation", None)
        line["losses"] = [line["losses"]["16"]]  # a list, highest resolution first, is understood too
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found, kind = training(Evidence(study, read_rows(sources.metrics_csv, Row)), Artifacts(sources.results))
    assert kind == "training loss" and found[0].resolution == 16


def test_gallery_reads_only_the_first_pictures_and_refuses_objects(tree, tmp_path: Path) -> None:
    study, sources, _ = tree
    rows = gallery.prompts(Artifacts(sources.results), study.runs[0], "zero-shot", 3)
    assert [len(row.pictures) for row in rows] == [3, 3, 3]
    assert [p.resolution for p in rows[0].pictures] == [16, 64, 256]
    assert rows[0].pictures[0].uri.startswith("data:image/png") and "image/jpeg" in rows[0].pictures[2].uri
    evil = tmp_path / "samples/x-1"
    evil.mkdir(parents=True)
    np.savez(evil / "images.npz", captions=np.array([{}], dtype=object), ids=np.arange(1))
    with pytest.raises(ArtifactError, match="Python objects"):
        gallery.load(Artifacts(tmp_path), "samples/x-1", 1)


def test_while_trainings_are_missing_the_note_counts_those_there_are(tree) -> None:
    study, _, evidence = tree
    early = Evidence(study, [row for row in evidence.rows if row.seed == 0])
    assert early.quantity("clip_score", "base", "zero-shot").over == "pictures of one training"
    assert "over the pictures of one training" in tables.interval_note(early)


def test_a_run_that_is_still_at_an_earlier_stage_costs_nothing_yet(tree) -> None:
    study, _, evidence = tree
    stages = [stage.name for stage in evidence.runs["base"].stages]
    assert len(stages) > 1 and evidence.quantity("train_images", "base") is not None
    half = Evidence(study, [row for row in evidence.rows if row.stage != stages[-1]])
    assert half.quantity("train_images", "base") is None


def test_the_interval_of_a_share_ends_at_none_and_at_all_but_that_of_a_difference_does_not():
    from mdm.report.metrics import shown
    from mdm.report.quantity import Quantity

    wide = Quantity(0.4, -0.1, 1.2)
    assert (shown("alignment", wide).low, shown("alignment", wide).high) == (0, 100)
    assert (shown("copied_8", wide, difference=True).low, shown("copied_8", wide, difference=True).high) == (-10, 120)
    assert (shown("loss_gap_8", wide).high, shown("fd_judge", wide).low) == (120, -0.1)
