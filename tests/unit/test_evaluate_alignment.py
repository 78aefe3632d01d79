"""Exact matches, factor by factor, and what guessing reaches."""

from __future__ import annotations

import numpy as np
import pytest

from mdm.data.sources.scenes.scene import SceneSettings, labels, scene
from mdm.evaluate.alignment import alignment, correct
from mdm.evaluate.labels import encode
from mdm.evaluate.metric_names import FACTORS

BLUE_CIRCLE = {"count": 2, "colours": [5], "shapes": [0], "pairs": [[5, 0]], "relation": 0}
TWO_GROUPS = {"count": 3, "colours": [0, 5], "shapes": [0, 1], "pairs": [[0, 1], [5, 0]], "relation": 1}
SWAPPED = {"count": 3, "colours": [0, 5], "shapes": [0, 1], "pairs": [[0, 0], [5, 1]], "relation": 2}


def real_labels(count: int) -> dict[str, np.ndarray]:
    settings = SceneSettings(split="all", num_images=count, resolution=16)
    return encode([labels(scene(0, number, settings)) for number in range(count)])


def test_encoding_marks_what_is_there_and_what_is_unknown() -> None:
    arrays = encode([TWO_GROUPS, {}])
    assert np.flatnonzero(arrays["colours"][0]).tolist() == [0, 5]
    assert np.flatnonzero(arrays["pairs"][0]).tolist() == [1, 40]
    assert (arrays["count"][0], arrays["relation"][0]) == (2, 1)
    assert all((values[1] == -1).all() for values in arrays.values())


def test_right_colours_and_shapes_in_wrong_pairs_are_a_binding_error() -> None:
    asked, seen = encode([TWO_GROUPS]), encode([SWAPPED])
    outcome = {factor: correct(seen, asked, factor).tolist() for factor in (None, *FACTORS)}
    assert outcome == {
        None: [False], "colour": [True], "shape": [True], "binding": [False], "count": [True], "relation": [False]
    }  # fmt: skip


def test_one_thing_too_many_is_wrong() -> None:
    assert not correct(encode([TWO_GROUPS]), encode([BLUE_CIRCLE]), "colour")[0]


def test_relation_counts_only_where_a_caption_asks_for_it() -> None:
    asked = encode([BLUE_CIRCLE, TWO_GROUPS, {}])
    assert correct(asked, asked, "relation").tolist() == [True]
    assert correct(asked, asked, "colour").tolist() == [True, True]
    assert correct(asked, asked, None).tolist() == [True, True]


def test_perfect_answers_score_one_and_chance_is_what_random_answers_reach() -> None:
    asked = real_labels(400)
    rows = {row["metric"]: row for row in alignment(asked, asked, shifts=16)}
    assert set(rows) == {
        f"alignment{part}{end}" for part in ("", *(f"_{f}" for f in FACTORS)) for end in ("", "_chance")
    }
    assert all(rows[f"alignment_{factor}"]["value"] == 1.0 for factor in FACTORS)
    # Counts 1 to 4 are equally likely; a scene of one group has one of eight colours.
    assert rows["alignment_count_chance"]["value"] == pytest.approx(0.25, abs=0.04)
    assert 0.01 < rows["alignment_colour_chance"]["value"] < 0.1
    assert rows["alignment_relation"]["n"] == int((asked["relation"] > 0).sum())


def test_pictures_without_labels_have_no_alignment() -> None:
    unknown = encode([{}, {}, {}])
    assert alignment(unknown, unknown, shifts=4) == []
