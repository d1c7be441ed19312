"""Ten situations in which somebody is called at night, set up for real: `python -m tests.scenarios NAME` keeps one until Ctrl-C.

What is to be seen and done in each is told in docs/operating.md; the tests do it.
"""
