"""What an error comes to in one line, and a number of bytes in words."""

import errno

import pytest
import tensorflow as tf

from neural_alignment import messages

WRAPPED = "{{function_node __wrapped__IteratorGetNext_device_/job:localhost/task:0}}"

GRAPH = """Graph execution error:

Detected at node PartitionedCall defined at (most recent call last):
<stack traces unavailable>
The stack trace below excludes Keras-internal frames.
  File "<frozen runpy>", line 198, in _run_module_as_main

  File "/a/loop.py", line 6, in <module>"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError(f"{WRAPPED} truncated record at 12 [Op:IteratorGetNext] name: "),
         "truncated record at 12"),
        (ValueError("{{node ParseExample}} no key\n\t [[{{node X}}]]"), "no key"),
        (tf.errors.DataLossError(None, None, f"{WRAPPED} corrupted record [Op:Get]"),
         "corrupted record"),
        (tf.errors.NotFoundError(None, None, f"{GRAPH}\n\n/proc/x; No such file\n [[{{node}}]]"),
         "/proc/x; No such file"),
        (ValueError("plain words."), "plain words"),
        (ValueError(""), "ValueError"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/x"), "/data/x: No such file"),
    ],
)  # fmt: skip
def test_one_line_without_graph_nodes_and_numbers_of_errors(error, line):
    assert messages.one_line(error) == line
    name = type(error).__name__
    assert messages.told(error) == (name if line == name else f"{name}, {line}")


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (3_460_000, "3.46 MB"),
     (999_600, "1 MB"), (10**6 - 1, "1 MB"), (147_897_477_120, "148 GB"), (10**16, "10000 TB")],
)  # fmt: skip
def test_sizes_say_something(count, words):
    assert messages.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "?"),
        (0.2, "0:00"),
        (59.6, "1:00"),
        (723, "12:03"),
        (3900, "1:05:00"),
        (1e5, "27:46:40"),
    ],
)
def test_durations(seconds, said):
    assert messages.duration(seconds) == said
