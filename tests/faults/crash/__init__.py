"""A worker that is killed (SIGKILL) at any line of the delivery path, again and again, and what it wrote down before.

``nursery`` is a process that has imported everything and forks a ``life`` for each start of the worker; the test kills,
restarts and compares what the lives noted with what their server got.
"""
