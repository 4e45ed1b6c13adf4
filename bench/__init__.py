"""How fast Ergon is, measured on a local cluster of its own: one script a question, each with its bars beside it.

In: options and a seed. Out: a table, and `results/<name>.json`. Nothing here is a test: a time on a shared machine is noise.
"""
