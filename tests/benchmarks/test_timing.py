import pytest

from benchmarks import timing


class _Machine:
    """A clock that the contestants move, at a speed that drifts."""

    def __init__(self):
        self.now, self.speed, self.order = 0.0, 1.0, []

    def contestant(self, name, seconds):
        def run():
            self.order.append(name)
            self.now += seconds * self.speed

        return run


def test_ratios_cancel_the_drift_between_rounds():
    machine = _Machine()
    fast, slow = machine.contestant("fast", 1.0), machine.contestant("slow", 1.5)

    def first():
        fast()

    runs = {"fast": first, "slow": slow}
    seconds = {"fast": [], "slow": []}
    for speed in (1.0, 3.0, 2.0):
        machine.speed = speed
        for name, times in timing.interleave(runs, 1, 2, clock=lambda: machine.now).items():
            seconds[name] += times
    assert seconds["fast"] == pytest.approx([1.0, 3.0, 2.0])
    assert timing.ratios(seconds, "fast")["slow"] == timing.Quartiles(1.5, 1.5, 1.5)


def test_contestants_take_turns_in_a_rotating_order():
    machine = _Machine()
    runs = {name: machine.contestant(name, 1.0) for name in "abc"}
    timing.interleave(runs, 3, 1, clock=lambda: machine.now)
    assert machine.order == list("abcbcacab")


def test_quartiles():
    assert timing.Quartiles.of([1, 2, 3, 4, 5]) == timing.Quartiles(2.0, 3.0, 4.0)
