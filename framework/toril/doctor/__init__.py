"""Finds out what is wrong with a server and its queues, and what to do about it. Nothing is changed.

Each check is a function of its own that returns findings; `examination.py` runs them all. What a check needs of the server it
reads in pages, so that it may run beside the work of a large queue.
"""
