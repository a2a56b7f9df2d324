"""The command line: flags in, one call, messages and exit codes out."""
