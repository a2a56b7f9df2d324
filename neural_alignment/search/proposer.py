"""What to try next: hyperopt's TPE, or random search, one proposal at a time.

Proposal k is that of hyperopt's `fmin` with `rstate=default_rng([seed, k])` and one evaluation to
go, on a Trials object rebuilt from the records. So it depends on the seed, k and the records alone,
and a search that was stopped and started again goes on as if it had not been.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import hyperopt
import numpy as np
from hyperopt import base

from neural_alignment.search.space import FlagValue, Parameter, Space
from neural_alignment.search.store import Record


class Proposer:
    """Proposes settings for a trial from the trials that have ended.

    Args:
        space: The search space.
        algorithm: "tpe" or "random".
        seed: The search's seed.
        startup_trials: Trials drawn at random before TPE begins.

    Raises:
        ValueError: an unknown algorithm.
    """

    def __init__(self, space: Space, algorithm: str, seed: int, startup_trials: int = 20) -> None:
        suggest = {
            "tpe": functools.partial(
                hyperopt.tpe.suggest, n_startup_jobs=startup_trials, verbose=False
            ),
            "random": hyperopt.rand.suggest,
        }
        if algorithm not in suggest:
            raise ValueError(
                f"Expected an algorithm out of {tuple(suggest)}. Received {algorithm!r}."
            )
        self.space = space
        self._suggest = suggest[algorithm]
        self._seed = seed
        self._domain = base.Domain(_no_objective, expression(space))

    def propose(self, trial: int, records: Iterable[Record]) -> dict[str, FlagValue]:
        """The settings of a trial.

        Args:
            trial: Its number, from 0.
            records: The trials that have ended, in any order.

        Returns:
            Parameter name to value, for the parameters that exist at this point.
        """
        trials = self._trials(records)
        rng = np.random.default_rng([self._seed, trial])
        [document] = self._suggest([trial], self._domain, trials, rng.integers(2**31 - 1))
        drawn = document["misc"]["vals"]
        return {
            parameter.name: _value(parameter, drawn[parameter.name][0])
            for parameter in self.space.walk()
            if len(drawn[parameter.name])
        }

    def _trials(self, records: Iterable[Record]) -> base.Trials:
        trials = base.Trials()
        documents = [
            self._document(trials, record)
            for record in sorted(records, key=lambda record: record.trial)
        ]
        trials.insert_trial_docs([document for document in documents if document])
        trials.refresh()
        return trials

    def _document(self, trials: base.Trials, record: Record) -> dict[str, Any] | None:
        """Hyperopt's document of an ended trial; None where it says nothing of its settings.

        A diverged trial is the fault of its settings, and TPE ranks it last; a crash, a full disk
        or a time limit may not be.
        """
        if record.state == "done":
            result = {"status": hyperopt.STATUS_OK, "loss": -record.score}
        elif record.diverged:
            result = {"status": hyperopt.STATUS_FAIL}
        else:
            return None
        raw = _raw(self.space, record.settings)
        misc = {
            "tid": record.trial,
            "cmd": self._domain.cmd,
            "workdir": self._domain.workdir,
            "idxs": {name: [record.trial] * len(values) for name, values in raw.items()},
            "vals": raw,
        }
        [document] = trials.new_trial_docs([record.trial], [None], [result], [misc])
        document["state"] = base.JOB_STATE_DONE
        return document


def expression(space: Space) -> dict[str, Any]:
    """The space as hyperopt's expression: nested dicts of hp.* nodes, a choice's options inside."""
    return {parameter.name: _node(parameter) for parameter in space.parameters}


def _node(parameter: Parameter) -> Any:
    name, low, high = parameter.name, parameter.low, parameter.high
    if parameter.distribution == "uniform":
        return hyperopt.hp.uniform(name, low, high)
    if parameter.distribution == "loguniform":
        return hyperopt.hp.loguniform(name, np.log(low), np.log(high))
    if parameter.distribution == "integer":
        # It rounds a uniform draw: half a unit more on each side gives the ends their full share.
        return hyperopt.hp.uniformint(name, low - 0.5, high + 0.5)
    options = [
        {"value": option.value, **{child.name: _node(child) for child in option.parameters}}
        for option in parameter.options
    ]
    return hyperopt.hp.choice(name, options)


def _value(parameter: Parameter, raw: Any) -> FlagValue:
    """The flag's value of a number that hyperopt drew."""
    if parameter.options:
        return parameter.options[int(raw)].value
    # exp(log(high)), or an integer's half a unit more, can pass the bound by rounding.
    value = min(max(float(raw), parameter.low), parameter.high)
    return int(value) if parameter.distribution == "integer" else value


def _raw(space: Space, settings: Mapping[str, FlagValue]) -> dict[str, list[float]]:
    """Hyperopt's numbers of some settings: an empty list for a parameter that does not exist."""
    raw: dict[str, list[float]] = {}
    for parameter in space.walk():
        values = [settings[parameter.name]] if parameter.name in settings else []
        raw[parameter.name] = [parameter.index(v) for v in values] if parameter.options else values
    return raw


def _no_objective(_: Any) -> None:
    raise RuntimeError("Expected the search to run the trials; hyperopt only proposes them.")
