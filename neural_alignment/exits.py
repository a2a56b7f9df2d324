"""Exit codes of the scripts."""

DONE = 0
FAILED = 1
USAGE = 2
# sysexits.h's EX_TEMPFAIL: run the same command again to go on.
INTERRUPTED = 75
