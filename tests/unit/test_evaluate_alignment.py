"""Exact matches, factor by factor, and what guessing reaches."""

from __future__ import annotations

import numpy as np
import pytest

from mdm.data.sources.scenes.scene import SceneSettings, scene
from mdm.data.sources.scenes.scene import labels as labels_of
from mdm.evaluate.alignment import alignment, asked, correct, shares_without
from mdm.evaluate.labels import encode
from mdm.evaluate.metric_names import FACTORS

BLUE_CIRCLE = {"count": 2, "colours": [5], "shapes": [0], "pairs": [[5, 0]], "relation": 0}
TWO_GROUPS = {"count": 3, "colours": [0, 5], "shapes": [0, 1], "pairs": [[0, 1], [5, 0]], "relation": 1}
SWAPPED = {"count": 3, "colours": [0, 5], "shapes": [0, 1], "pairs": [[0, 0], [5, 1]], "relation": 2}


def real_labels(count: int) -> dict[str, np.ndarray]:
    settings = SceneSettings(split="all", num_images=count, resolution=16)
    return encode([labels_of(scene(0, number, settings)) for number in range(count)])


def test_encoding_marks_what_is_there_and_what_is_unknown() -> None:
    arrays = encode([TWO_GROUPS, {}])
    assert np.flatnonzero(arrays["colours"][0]).tolist() == [0, 5]
    assert np.flatnonzero(arrays["pairs"][0]).tolist() == [1, 40]
    assert (arrays["count"][0], arrays["relation"][0]) == (2, 1)
    assert all((values[1] == -1).all() for values in arrays.values())


def test_right_colours_and_shapes_in_wrong_pairs_are_a_binding_error() -> None:
    wanted, seen = encode([TWO_GROUPS]), encode([SWAPPED])
    outcome = {factor: correct(seen, wanted, factor).tolist() for factor in (None, *FACTORS)}
    assert outcome == {
        None: [False], "colour": [True], "shape": [True], "binding": [False], "count": [True], "relation": [False]
    }  # fmt: skip


def test_one_thing_too_many_is_wrong() -> None:
    assert not correct(encode([TWO_GROUPS]), encode([BLUE_CIRCLE]), "colour")[0]


def test_relation_counts_only_where_a_caption_asks_for_it() -> None:
    wanted = encode([BLUE_CIRCLE, TWO_GROUPS, {}])
    assert correct(wanted, wanted, "relation").tolist() == [True]
    assert correct(wanted, wanted, "colour").tolist() == [True, True]
    assert correct(wanted, wanted, None).tolist() == [True, True]


def test_perfect_answers_score_one_and_chance_is_what_random_answers_reach() -> None:
    labels = real_labels(400)
    rows = {row["metric"]: row for row in alignment(labels, labels, shifts=16)}
    assert set(rows) == {
        f"alignment{part}{end}" for part in ("", *(f"_{f}" for f in FACTORS)) for end in ("", "_chance")
    }
    assert all(rows[f"alignment_{factor}"]["value"] == 1.0 for factor in FACTORS)
    # Counts 1 to 4 are equally likely; a scene of one group has one of eight colours.
    assert rows["alignment_count_chance"]["value"] == pytest.approx(0.25, abs=0.04)
    assert 0.01 < rows["alignment_colour_chance"]["value"] < 0.1
    assert rows["alignment_relation"]["n"] == int((labels["relation"] > 0).sum())
    assert rows["alignment_relation"]["without"] == [1.0] * 20 and "without" not in rows["alignment_chance"]


def test_pictures_without_labels_have_no_alignment() -> None:
    unknown = encode([{}, {}, {}])
    assert alignment(unknown, unknown, shifts=4) == []


def test_shares_without_each_group_of_captions() -> None:
    """Groups are by the place of the caption, whether or not it asks for the factor."""
    relevant = np.array([True, True, False, True, False, True, True, True])  # four groups of two: k and k + 4
    outcome = np.array([True, False, True, True, False, True])  # of places 0, 1, 3, 5, 6, 7
    assert shares_without(outcome, relevant) == [3 / 5, 3 / 4, 4 / 5, 2 / 4]


def test_shares_of_too_few_pictures_have_no_groups() -> None:
    relevant = np.array([True, False, False, False, True, False, False, False])
    assert shares_without(np.array([True, False]), relevant) is None, "one group holds both"
    assert shares_without(np.array([True] * 3), np.full(3, True)) is None
    assert shares_without(np.array([]), np.full(8, False)) is None


def test_rows_know_their_shares_without_each_group() -> None:
    labels, seen = real_labels(100), real_labels(101)
    seen = {key: np.where(np.arange(100).reshape(-1, *[1] * (v.ndim - 1)) % 3 == 0, v[1:], labels[key])
            for key, v in seen.items()}  # fmt: skip
    rows = {row["metric"]: row for row in alignment(seen, labels, shifts=4)}
    for factor in (None, *FACTORS):
        row = rows[f"alignment_{factor}" if factor else "alignment"]
        right, relevant = correct(seen, labels, factor), asked(labels, factor or "binding")
        places = np.flatnonzero(relevant)
        wanted = [right[places % 20 != group].mean() for group in range(20)]
        assert row["without"] == pytest.approx(wanted) and row["value"] == right.mean()
