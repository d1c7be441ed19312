"""The command `toril`."""
