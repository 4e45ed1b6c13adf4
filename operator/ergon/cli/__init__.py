"""`ergon`, also installed as `kubectl-ergon`: the commands a person types.

In: arguments and environment. Out: tables, files, exit codes. Every error is one line.
"""
