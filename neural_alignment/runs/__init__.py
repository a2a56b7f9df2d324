"""What a run leaves behind: its directory, tables and checkpoints, for all who read them."""
