"""What can be typed: one file for each group of commands. Only typer is imported here; the work is done in `toril/cli/`."""
