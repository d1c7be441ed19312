"""Tells users what happened, by whatever way reaches them. Today that is mail."""
