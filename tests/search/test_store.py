"""The store: what survives a cut line, a full disk, and another search."""

import errno
import json
import os

import pytest

from neural_alignment.search import plan as plans
from neural_alignment.search.store import Store, StoreError
from tests.search.support import fake_space, make_plan, record


def filled(directory, number=3):
    store = Store(directory)
    store.create()
    for trial in range(number):
        store.append(record(trial, 0.1 * trial + 1e-17, {"x": 0.1 + 0.2}))
    return store


def test_one_line_a_trial(tmp_path):
    store = filled(tmp_path)
    lines = [json.loads(line) for line in store.trials_file.read_text().splitlines()]
    assert [line["trial"] for line in lines] == [0, 1, 2]
    assert {"trial", "state", "score", "flags", "seconds", "reason"} <= set(lines[0])
    again = Store(tmp_path)
    again.read()
    assert again.records == store.records and again.damage is None


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_damaged_last_line_is_reported_and_overwritten(tmp_path, cut):
    store = filled(tmp_path)
    whole = store.trials_file.read_bytes()
    store.trials_file.write_bytes(whole[:-cut])
    again = Store(tmp_path)
    again.read()
    assert "line 3 is damaged" in again.damage
    assert again.records == store.records[:2]
    again.append(store.records[2])
    assert store.trials_file.read_bytes() == whole


def test_a_damaged_line_before_the_last_is_an_error(tmp_path):
    store = filled(tmp_path)
    lines = store.trials_file.read_text().splitlines(keepends=True)
    store.trials_file.write_text(lines[0] + lines[1][:20] + "\n" + lines[2])
    with pytest.raises(StoreError, match="line 2.*by hand"):
        Store(tmp_path).read()
    store.trials_file.write_text(lines[0] + lines[0])
    with pytest.raises(StoreError, match="trial 0 twice"):
        Store(tmp_path).read()


@pytest.mark.parametrize("short", [False, True])
def test_no_space_left(tmp_path, monkeypatch, short):
    store = filled(tmp_path)
    whole = store.trials_file.read_bytes()
    write = os.write

    def full(file, data):
        if short:
            return write(file, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("neural_alignment.search.store.os.write", full)
    with pytest.raises(StoreError, match="No space left on device.*start the same search again"):
        store.append(record(3, 0.5, {}))
    monkeypatch.undo()
    assert store.trials_file.read_bytes() == whole and len(store.records) == 3
    store.append(record(3, 0.5, {}))
    assert store.trials_file.read_bytes().startswith(whole)


def test_a_search_that_is_not_the_same_is_refused_with_the_difference(tmp_path):
    store = filled(tmp_path, 0)
    plan = make_plan(fake_space(data_dir="/a"))
    plans.resume(store, plan)
    plans.check(store, make_plan(fake_space(data_dir="/b")))
    assert plans.load(store) == plan
    (saved,) = tmp_path.glob("*.json")  # by an editor that marks its UTF-8
    saved.write_bytes(b"\xef\xbb\xbf" + saved.read_bytes())
    assert plans.load(store) == plan
    with pytest.raises(StoreError, match="seed was 0 and is 1"):
        plans.check(store, make_plan(fake_space(data_dir="/a"), seed=1))
    other = fake_space(data_dir="/a", z=1)
    other["parameters"][0]["high"] = 2.0
    with pytest.raises(StoreError, match="flags.z was None and is 1.*x.high was 1.0 and is 2.0"):
        plans.check(store, make_plan(other))
