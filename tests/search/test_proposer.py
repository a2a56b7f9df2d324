"""Proposals: those of hyperopt's fmin, repeatable, and better than chance."""

import collections
import statistics

import hyperopt
import numpy as np
import pytest
from scipy import stats

from neural_alignment.search import space_file
from neural_alignment.search.proposer import Proposer, expression
from tests.search.support import fake_space, make_plan, record


def score(settings):
    """A smooth function with its maximum, 1, at x = 0.3 and y = 0.1."""
    x, y = settings["x"], np.log10(settings["y"])
    return 1.0 - (x - 0.3) ** 2 - 0.2 * (y + 1.0) ** 2 - (0.3 if settings["switch"] else 0.0)


def search(algorithm, seed, trials, startup=10):
    """The records of a search of `score` without processes."""
    plan = make_plan(fake_space())
    proposer = Proposer(plan.space, algorithm, seed, startup)
    records = []
    for trial in range(trials):
        settings = proposer.propose(trial, records)
        records.append(record(trial, score(settings), settings))
    return records


def test_tpe_beats_random():
    best = {
        algorithm: [max(r.score for r in search(algorithm, seed, 40)) for seed in range(5)]
        for algorithm in ("tpe", "random")
    }
    assert statistics.mean(best["tpe"]) > statistics.mean(best["random"])
    assert statistics.median(best["tpe"]) > statistics.median(best["random"])
    late = {a: statistics.mean(r.score for r in search(a, 0, 40)[20:]) for a in best}
    assert late["tpe"] > late["random"] + 0.3


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_a_proposal_is_that_of_fmin(algorithm):
    plan = make_plan(fake_space())
    proposer = Proposer(plan.space, algorithm, seed=3, startup_trials=20)
    suggest = {"tpe": hyperopt.tpe.suggest, "random": hyperopt.rand.suggest}[algorithm]
    trials = hyperopt.Trials()
    asked = []

    def objective(point):
        asked.append(point)
        return -score({**point, "switch": point["switch"]["value"]})

    records = []
    for trial in range(24):
        settings = proposer.propose(trial, records)
        hyperopt.fmin(
            objective,
            expression(plan.space),
            algo=suggest,
            max_evals=trial + 1,
            trials=trials,
            rstate=np.random.default_rng([3, trial]),
            show_progressbar=False,
        )
        assert settings == {**asked[-1], "switch": asked[-1]["switch"]["value"]}
        records.append(record(trial, score(settings), settings))


def test_the_order_of_records_does_not_matter():
    records = search("tpe", 0, 15)
    proposer = Proposer(make_plan(fake_space()).space, "tpe", 0, 10)
    assert proposer.propose(15, records) == proposer.propose(15, records[::-1])
    assert proposer.propose(15, records) != proposer.propose(16, records)


def test_tpe_leaves_what_diverges_and_ignores_what_crashes():
    plan = make_plan(fake_space())
    proposer = Proposer(plan.space, "tpe", 0, 10)
    records = []
    for trial in range(60):
        settings = proposer.propose(trial, records)
        wide = settings["y"] > 0.1
        reason = "diverged: loss is nan in epoch 1" if wide else None
        records.append(record(trial, None if wide else 0.5, settings, reason))
    assert sum(r.score is None for r in records[30:]) < sum(r.score is None for r in records[:30])
    crashed = [record(r.trial, None, r.settings, "crashed: SIGSEGV") for r in records]
    assert proposer.propose(60, crashed) == proposer.propose(60, [])


@pytest.mark.parametrize("name", space_file.names())
def test_every_proposal_is_in_its_space(name):
    space = space_file.load(name)
    proposer = Proposer(space, "tpe", 0, 4)
    records = []
    for trial in range(8):
        settings = proposer.propose(trial, records)
        assert space.contains(settings)
        records.append(record(trial, trial % 3, settings))


def test_an_integer_takes_every_value_as_often():
    data = fake_space()
    data["parameters"] = [
        {"name": "n", "distribution": "integer", "flag": "n", "low": 3, "high": 5}
    ]
    proposer = Proposer(make_plan(data).space, "random", 0)
    counts = collections.Counter(proposer.propose(trial, [])["n"] for trial in range(600))
    assert set(counts) == {3, 4, 5}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_unknown_algorithm():
    with pytest.raises(ValueError, match="Expected an algorithm.*'grid'"):
        Proposer(make_plan(fake_space()).space, "grid", 0)
