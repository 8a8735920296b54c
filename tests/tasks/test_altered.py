"""Prompts that are altered in one way, and in no other."""

from __future__ import annotations

import dataclasses

import numpy as np

import mgnp_jax as mg
from mgnp_jax.tasks import TASKS
from mgnp_jax.tasks.altered import freshly_corrupted, half_of, with_answers_of_others
from mgnp_jax.tasks.task import Counts, build


def test_fresh_corruptions_leave_the_clean_prompts_and_their_answers(mini: mg.Model) -> None:
    few = Counts(train=4, validation=4, test=30)
    for name in ("ioi", "gp"):
        task = dataclasses.replace(TASKS[name], counts=few)
        fresh = freshly_corrupted(task, mini.tokenizer)
        assert fresh is not None
        a, b = (build(each, mini.tokenizer, 3, 0).test for each in (task, fresh))
        np.testing.assert_array_equal(a.clean, b.clean)
        np.testing.assert_array_equal(a.targets.answers.tokens, b.targets.answers.tokens)
        same = (np.asarray(a.corrupted) == b.corrupted).all(-1)
        # Of a few names, the same may be drawn again.
        assert same.mean() < 0.5
    # Its corrupted prompts all have one year, so that there are no others.
    assert freshly_corrupted(TASKS["gt"], mini.tokenizer) is None


def test_shuffled_answers_are_those_of_another_prompt_for_all_its_rows(
    mini_ioi: mg.TaskData,
) -> None:
    moved = with_answers_of_others(mini_ioi, 0)
    for name in ("train", "validation", "test"):
        before, after = getattr(mini_ioi, name), getattr(moved, name)
        np.testing.assert_array_equal(before.clean, after.clean)
        np.testing.assert_array_equal(before.corrupted, after.corrupted)
        ours, theirs = (np.asarray(b.targets.answers.tokens) for b in (before, after))
        # Nobody keeps its own, though two prompts may share names.
        assert (ours != theirs).any(-1).mean() > 0.8
        assert sorted(ours[:, 0].tolist()) == sorted(theirs[:, 0].tolist())
        _, of = np.unique(np.asarray(before.clean), axis=0, return_inverse=True)
        for group in range(5):
            assert len(np.unique(theirs[of.reshape(-1) == group], axis=0)) == 1


def test_halves_share_no_clean_prompt_and_make_up_the_whole(mini_ioi: mg.TaskData) -> None:
    halves = [half_of(mini_ioi, which) for which in (0, 1)]
    clean = [{row.tobytes() for row in np.asarray(half.train.clean)} for half in halves]
    assert [len(each) for each in clean] == [100, 100] and not clean[0] & clean[1]
    assert sum(len(half.train) for half in halves) == len(mini_ioi.train)
    assert all(half.test is mini_ioi.test for half in halves)
