"""Queues and jobs as an application sees them: add, look, wait for results, hear events. Works without any container."""
