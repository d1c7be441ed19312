"""Runs the jobs of one queue. The parts are drawn in `worker.py`."""
